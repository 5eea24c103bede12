"""Answers what a mistake of ours breaks: the log has the error, the client a problem with the headers of every response."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stream.gateway.problems import Problem, ProblemKind

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


class FailedRequests:
    """ASGI middleware. A response that has begun cannot be taken back: it breaks off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as error:
            if scope["type"] != "http" or has_begun:
                raise
            logger.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            failed = Problem(ProblemKind.INTERNAL, "the gateway's log says why; please report it")
            await failed.response()(scope, receive, send)
