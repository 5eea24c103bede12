"""What a gateway passes on, and what it never asks of anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from stream.gateway.forwarder import Forwarder, _PassedStream
from stream.gateway.problems import Problem, ProblemKind


def test_a_path_that_would_name_another_machine_is_not_passed_on() -> None:
    """``@`` in front of the first slash of a path makes a name and password of the owner's address."""
    asked: list[Any] = []
    forwarder: Any = Forwarder(9)
    forwarder._session = SimpleNamespace(request=lambda *args, **options: asked.append(args))
    scope = {"raw_path": b"%2Fv1%2Fusers%2Fa@169.254.169.254/x", "query_string": b""}
    request: Any = SimpleNamespace(scope=scope, headers={}, method="GET")
    with pytest.raises(Problem) as raised:
        asyncio.run(forwarder.forward(request, 0, "http://g2:9470"))
    assert raised.value.kind is ProblemKind.NOT_FOUND
    assert not asked


def test_what_says_who_asks_and_from_where_on_is_passed_on_and_a_cookie_is_not() -> None:
    """Without its ``Last-Event-ID`` a stream would repeat what was sent."""
    asked: list[Any] = []

    async def body() -> None:
        async def request_of(*args: Any, **options: Any) -> Any:
            asked.append((args, options["headers"]))
            raise OSError("gone")

        forwarder: Any = Forwarder(9)
        forwarder._session = SimpleNamespace(request=request_of)
        scope = {"raw_path": b"/v1/users/u/stream", "query_string": b"ticket=t%26"}
        said = {"Authorization": "Bearer t", "Last-Event-ID": "3-7-6"}
        request: Any = SimpleNamespace(scope=scope, headers=said | {"Cookie": "c"}, method="GET")
        with pytest.raises(Problem, match="no-owner"):
            await forwarder.forward(request, 0, "http://g2")
        ((_, url), headers) = asked[0]
        assert str(url) == "http://g2/v1/users/u/stream?ticket=t%26"
        assert headers == said | {"Intentrec-Forwarded": "1"}

    asyncio.run(body())


class Answer:
    """The answer of another gateway: these chunks, and then nothing until it is closed."""

    def __init__(self, *chunks: bytes) -> None:
        self.content, self._chunks, self._closed = self, chunks, asyncio.Event()

    async def iter_any(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        await self._closed.wait()

    def close(self) -> None:
        self._closed.set()


@pytest.mark.parametrize(
    ("last", "ends_with"),
    [
        (b'event: intents\ndata: {"a": 1}\n\n', b'event: bye\ndata: {"reason":"stopping"}\n\n'),
        (b'event: intents\ndata: {"a', b'{"a'),  # a line more would make a whole event of the half one
    ],
)
def test_a_stream_that_is_passed_on_ends_as_an_own_one_does(last: bytes, ends_with: bytes) -> None:
    async def body() -> bytes:
        answer: Any = Answer(b": heartbeat\n\n", last)
        passed = _PassedStream(answer, 0, "http://g2")
        received = b""
        async with asyncio.timeout(20):
            async for chunk in passed.chunks():
                received += chunk
                if chunk == last:
                    passed.end("stopping")
        return received

    assert asyncio.run(body()).endswith(ends_with)


def test_streams_of_an_owner_that_has_none_of_their_members_any_more_end_and_the_others_go_on() -> None:
    """A machine that is gone says nothing: they would wait for it."""

    async def body() -> dict[str, bytes]:
        forwarder = Forwarder(9)
        received: dict[str, bytes] = {}

        async def follow(name: str, number: int) -> None:
            answer: Any = Answer()
            stream = _PassedStream(answer, number, "http://g2")
            forwarder._streams.add(stream)
            received[name] = b"".join([chunk async for chunk in stream.chunks()])

        gone, here = (asyncio.create_task(follow(name, number)) for number, name in enumerate(("gone", "here")))
        await asyncio.sleep(0)
        forwarder.end("moved", lambda partition, owner: (partition, owner) == (0, "http://g2"))
        async with asyncio.timeout(20):
            await gone
        assert not here.done()
        here.cancel()
        return received

    assert asyncio.run(body()) == {"gone": b'event: bye\ndata: {"reason":"moved"}\n\n'}
