"""HTTP server for /metrics (Prometheus), /livez (restart the process if it fails) and /readyz (ready to work).

It has its own port and listens on loopback by default. It exposes no data of members, but has no access control either.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from intentrec_core.errors import ConfigError

if TYPE_CHECKING:
    from stream.ops.metrics import Metrics
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: Returns None if the process is healthy, otherwise one line that describes the problem.
Check = Callable[[], str | None]


class HealthServer:
    """Serves the three paths from the running event loop. If the loop hangs, requests time out, so /livez fails as it should."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, *, live: Check, ready: Check) -> None:
        self._host = host
        self._port = port
        self._registry = registry
        self._live = live
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Starts to listen and returns the port: the requested one, or a free one if that is 0.

        Raises: ConfigError when the port is in use or the host is not an address of this machine.
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
                "choose another metrics_port, or 0 for any free port"
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
        return _response(self._live())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _response(self._ready())


@contextlib.asynccontextmanager
async def serve_health(settings: Settings, metrics: Metrics, *, live: Check, ready: Check) -> AsyncIterator[int]:
    """Serves a process's metrics and health at its ``metrics_host`` and ``metrics_port``, and gives the port.

    Raises: as :meth:`HealthServer.start`.
    """
    health = HealthServer(settings.metrics_host, settings.metrics_port, metrics.registry, live=live, ready=ready)
    port = await health.start()
    logger.info("metrics and health are served on %s:%d", settings.metrics_host, port)
    try:
        yield port
    finally:
        await health.stop()


def _response(problem: str | None) -> web.Response:
    return web.Response(status=200 if problem is None else 503, text=(problem or "ok") + "\n")
