"""A TCP proxy that can be cut: nothing passes and nothing is closed, as when a cable is pulled.

What a side sends during a cut is kept and arrives when it is healed, also from a sender that has given up meanwhile: the late
packets of a zombie. Connections made during a cut are answered by the kernel, and then by silence. What TCP itself does in a
long cut, sending again less and less often, is not played: after healing everything passes at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Self

from stream.local_kafka.ports import HOST, free_port

_CHUNK_BYTES = 64 * 1024


class TcpProxy:
    """Listens on ``port`` and forwards to ``target``, which may be set later. A context manager; used from any thread."""

    def __init__(self, target: int = 0) -> None:
        self.port = free_port()
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}")
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Nothing passes any more, in either direction."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def heal(self) -> None:
        """What was held back arrives, in order, and everything passes."""
        self._loop.call_soon_threadsafe(self._passing.set)

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)

    async def _close(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._passing.wait()
            there_reader, there_writer = await asyncio.open_connection(HOST, self.target)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(reader, there_writer))
                    both.create_task(self._forward(there_reader, writer))
            finally:
                there_writer.close()
        except* (OSError, asyncio.CancelledError):
            pass  # one side is gone, or the proxy is: so is the connection
        finally:
            writer.close()
            self._connections.discard(task)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK_BYTES):
            await self._passing.wait()
            sink.write(chunk)
            await sink.drain()
        await self._passing.wait()  # an end is news, too
        if sink.can_write_eof():
            sink.write_eof()
