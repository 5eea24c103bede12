"""The response of a stream: sends chunks as they come, and notices at once when the reader is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

EVENT_STREAM = "text/event-stream"


class EventStream(Response):
    """Sends ``chunks``. ``on_gone`` is called when the reader disconnects, and must end the chunks; ``on_end`` once, at the end.

    A reader that does not read stops the chunks when its socket is full: nothing more is asked of them.
    """

    media_type = EVENT_STREAM

    def __init__(
        self, chunks: AsyncIterator[bytes], *, on_gone: Callable[[], None], on_end: Callable[[], None]
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})  # nginx would hold events back
        del self.headers["Content-Length"]
        self._chunks, self._on_gone, self._on_end = chunks, on_gone, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        watching = asyncio.ensure_future(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            self._on_end()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._on_gone()
