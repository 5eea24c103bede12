"""What the outside may ask a process: /metrics for Prometheus, /livez (restart me when it fails), /readyz (send me work).

On its own port, loopback unless told otherwise: it shows no data of members, but it is nobody else's business either.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from intentrec_core.errors import ConfigError

#: A check answers None when all is well, else one line that says what is not.
Check = Callable[[], str | None]


class HealthServer:
    """Serves the three paths on the running event loop: a loop that hangs does not answer, which is an answer too."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, *, live: Check, ready: Check) -> None:
        self._host = host
        self._port = port
        self._registry = registry
        self._live = live
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Begins to listen and returns the port, which differs from the one asked for only where that was 0.

        Raises: ConfigError when the port is taken or the host is not this machine's.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        runner = self._runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise ConfigError(
                f"cannot listen on {self._host}:{self._port} for metrics and health ({error.strerror}); "
                "choose another metrics_port, or 0 for any free one"
            ) from None
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self._live())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._ready())


def _answer(problem: str | None) -> web.Response:
    return web.Response(status=200 if problem is None else 503, text=(problem or "ok") + "\n")
