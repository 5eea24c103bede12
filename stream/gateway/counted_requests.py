"""Counts requests and how long each took until its response began, by what it asked for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream.ops.metrics import GatewayPath, Metrics, RequestOutcome

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MEMBER_PATHS = {path.value: path for path in GatewayPath if path not in (GatewayPath.PLAYS, GatewayPath.OTHER)}


class CountedRequests:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began_s, path = time.perf_counter(), kind_of(scope["path"])

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                outcome = RequestOutcome.ANSWERED if status < 400 else RequestOutcome.REFUSED
                self._metrics.gateway_requests.labels(path, RequestOutcome.FAILED if status >= 500 else outcome).inc()
                self._metrics.gateway_request_seconds.labels(path).observe(time.perf_counter() - began_s)
            await send(message)

        return await self._app(scope, receive, send_counted)


def kind_of(path: str) -> GatewayPath:
    """What a path asks for."""
    if path.startswith("/v1/users/"):
        return _MEMBER_PATHS.get(path.rsplit("/", 1)[1], GatewayPath.OTHER)
    if path.startswith("/v1/items"):
        return GatewayPath.ITEMS
    if path == "/v1/plays":
        return GatewayPath.PLAYS
    return GatewayPath.OPERATORS if path in ("/v1/users", "/v1/updates", "/v1/status") else GatewayPath.OTHER
