"""HTTP clients that cost little beside what they measure: requests in a closed loop, and streams that are held open.

They write fixed bytes and look for the end of an answer, nothing more: no library parses what comes back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_LIMIT = 1 << 20
_EVENT = b"\nevent: "


async def latencies_of(
    port: int, paths: Sequence[str], *, connections: int, seconds: float
) -> tuple[list[float], float]:
    """Latencies in seconds of requests in a closed loop, and requests a second.

    Raises: AssertionError for an answer that is not 200.
    """
    found: list[float] = []
    until_s = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
        requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths]
        turn = number
        while (began_s := time.perf_counter()) < until_s:
            writer.write(requests[turn % len(requests)])
            turn += connections
            head = await reader.readuntil(_HEAD_END)
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]))
            found.append(time.perf_counter() - began_s)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return found, len(found) / seconds


class HeldStreams:
    """Streams that are open and read: counts their events. ``on_chunk`` gets the bytes of each chunk, and when it came."""

    def __init__(self, on_chunk: Callable[[bytes, float], None] = lambda chunk, at_s: None) -> None:
        self._on_chunk = on_chunk
        self._transports: list[asyncio.Transport] = []
        self.num_open = 0
        self.num_events = 0
        self._changed = asyncio.Event()

    async def open(self, port: int, paths: Sequence[str]) -> None:
        """Opens a stream for each path; returns once all of them have begun."""
        loop, wanted = asyncio.get_running_loop(), self.num_open + len(paths)
        for path in paths:
            transport, _ = await loop.create_connection(lambda path=path: _Stream(self, path), "127.0.0.1", port)  # type: ignore[misc]
            self._transports.append(transport)
        await self.until(lambda: self.num_open >= wanted)

    async def until(self, holds: Callable[[], bool], within_s: float = 120) -> None:
        """Returns once something holds, which can change with every chunk.

        Raises: TimeoutError.
        """
        async with asyncio.timeout(within_s):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def quiet(self, seconds: float) -> None:
        """Returns once nothing has come for so long."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return

    def close(self) -> None:
        """Closes all of them."""
        for transport in self._transports:
            transport.abort()

    def received(self, chunk: bytes) -> None:
        """Bytes of some stream."""
        self.num_events += chunk.count(_EVENT)
        self._on_chunk(chunk, time.time())
        self._changed.set()


class _Stream(asyncio.Protocol):
    def __init__(self, streams: HeldStreams, path: str) -> None:
        self._streams, self._path, self._has_begun = streams, path, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if not self._has_begun:
            assert data.startswith(b"HTTP/1.1 200"), data
            self._has_begun = True
            self._streams.num_open += 1
        self._streams.received(data)
