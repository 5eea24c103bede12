"""Passes requests on to the gateway that has their member: one hop, never two, and streams as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
from starlette.responses import Response
from yarl import URL

from stream.gateway.event_stream import EVENT_STREAM, EventStream
from stream.gateway.problems import Problem, ProblemKind
from stream.gateway.streams import bye

if TYPE_CHECKING:
    from fastapi import Request

logger = logging.getLogger(__name__)

#: Says that a request was passed on: the gateway that gets it answers it, or nobody does.
FORWARDED = "Intentrec-Forwarded"
_PASSED_ON = ("Authorization", "Content-Type", "Last-Event-ID", "Accept", "Traceparent", "Tracestate")
_PASSED_BACK = ("Content-Type", "Cache-Control", "Retry-After", "WWW-Authenticate")
_CONNECT_S = 2.0
_ANSWER_S = 10.0
#: A stream sends a heartbeat at least this often, whatever the setting is; without one its gateway is gone.
_SILENCE_S = 120.0


class Forwarder:
    """An async context manager, owned by the event loop. It passes on at most ``max_streams`` streams at a time."""

    def __init__(self, max_streams: int, on_forwarded: Callable[[bool], None] = lambda ok: None) -> None:
        self._max_streams, self._on_forwarded = max_streams, on_forwarded
        self._streams: set[_PassedStream] = set()
        self._end_reason: str | None = None

    async def __aenter__(self) -> Self:
        """Opens the connections' pool."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connections."""
        await self._session.close()

    def end_all(self, reason: str) -> None:
        """Ends every stream that is being passed on, and will be."""
        self._end_reason = reason
        self.end(reason, lambda partition, owner: True)

    def end(self, reason: str, belongs: Callable[[int, str], bool]) -> None:
        """Ends the streams of the partitions and owners that ``belongs`` names.

        A machine that is gone does not say so: without this, its streams would hang.
        """
        for stream in self._streams:
            if belongs(stream.partition, stream.owner):
                stream.end(reason)

    async def forward(self, request: Request, partition: int, owner: str, body: bytes | None = None) -> Response:
        """The answer of the gateway at ``owner``, which has the member's ``partition``; a stream as it comes.

        Raises: Problem (no_owner) when the request was passed on before, or the gateway does not answer; (too_many_streams).
        """
        if FORWARDED in request.headers:
            raise Problem(ProblemKind.NO_OWNER, "the gateways do not agree who has this member yet: ask again")
        try:
            async with asyncio.timeout(_ANSWER_S):
                response = await self._ask(request, partition, owner, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._on_forwarded(False)
            logger.warning("the gateway %s does not answer: %r", owner, error)
            raise Problem(ProblemKind.NO_OWNER, f"the gateway {owner} does not answer; it is being replaced") from None
        self._on_forwarded(True)
        return response

    async def _ask(self, request: Request, partition: int, owner: str, body: bytes | None) -> Response:
        raw_path = request.scope["raw_path"].partition(b"?")[0].decode("ascii")
        if not raw_path.startswith("/v1/"):  # an "@" before the first "/" would make a host of another machine of it
            raise Problem(ProblemKind.NOT_FOUND, f"no {raw_path}; the paths are at /docs")
        query = request.scope["query_string"].decode("ascii")
        url = URL(f"{owner}{raw_path}{'?' + query if query else ''}", encoded=True)
        headers = {name: value for name in _PASSED_ON if (value := request.headers.get(name)) is not None}
        headers[FORWARDED] = "1"
        answer = await self._session.request(request.method, url, headers=headers, data=body, allow_redirects=False)
        back = {name: value for name in _PASSED_BACK if (value := answer.headers.get(name)) is not None}
        if answer.content_type == EVENT_STREAM:
            if len(self._streams) >= self._max_streams:
                answer.close()
                raise Problem(
                    ProblemKind.TOO_MANY_STREAMS, f"{len(self._streams)} are passed on; allowed: gateway_max_streams"
                )
            passed = _PassedStream(answer, partition, owner)
            self._streams.add(passed)
            if self._end_reason is not None:
                passed.end(self._end_reason)

            def on_end() -> None:
                self._streams.discard(passed)
                answer.close()

            stream = EventStream(passed.chunks(), on_gone=answer.close, on_end=on_end)
            stream.status_code = answer.status
            stream.headers.update(back)
            return stream
        async with answer:
            return Response(await answer.read(), status_code=answer.status, headers=back)


class _PassedStream:
    """A stream of another gateway, as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse, partition: int, owner: str) -> None:
        self._answer = answer
        self.partition, self.owner = partition, owner
        self._end_reason: str | None = None

    def end(self, reason: str) -> None:
        """Ends it, with a last event that says so."""
        self._end_reason = reason
        self._answer.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its chunks. Where the other gateway is suddenly gone, they just end: a half event counts for nothing, and the reader
        connects again.
        """
        is_between_events = True
        try:
            async for chunk in self._answer.content.iter_any():
                if self._end_reason is not None:
                    break
                yield chunk
                is_between_events = chunk.endswith(b"\n\n")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if self._end_reason is None:
                logger.info("a stream that was passed on has broken: %r", error)
        if self._end_reason is not None and is_between_events:
            yield bye(self._end_reason)
