"""Bounds what a worker fetches ahead: plays in memory, and plays that a crash would replay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.delivery.in_flight import InFlight
    from stream.delivery.play_buffer import PlayBuffer


class FlowControl:
    """Owned by the event loop. At most ``max_buffered`` plays wait for inference; one fetch may exceed it."""

    def __init__(self, buffer: PlayBuffer, in_flight: InFlight, *, max_buffered: int) -> None:
        self._buffer, self._in_flight, self._max_buffered = buffer, in_flight, max_buffered
        self._capacity, self._always_had_capacity = asyncio.Event(), True
        self._closed = False

    @property
    def has_capacity(self) -> bool:
        """Whether more plays may be fetched now."""
        return not self._closed and self._buffer.num_plays < self._max_buffered and self._in_flight.has_capacity

    async def wait_for_capacity(self) -> None:
        """Returns when more plays may be fetched; never again after :meth:`close`."""
        while not self.has_capacity:
            self._always_had_capacity = False
            self._capacity.clear()
            await self._capacity.wait()

    def had_capacity(self) -> bool:
        """Whether there was capacity all the time since the last call."""
        had, self._always_had_capacity = self._always_had_capacity, self.has_capacity
        return had

    def update(self) -> None:
        """Plays left the buffer, were committed or were dropped."""
        if self.has_capacity:
            self._capacity.set()

    def close(self) -> None:
        """No more plays are fetched."""
        self._closed = True
