"""Buffers fetched plays by partition until a micro-batch is due.

A micro-batch is due when ``max_batch`` plays wait, or when the oldest play has waited for the deadline. It is divided among all
partitions with plays, so that one with a backlog cannot starve the others. Only the injected clock is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream.wire.records import SourceRecord


class PlayBuffer:
    """Plays by partition, in source order. Owned by the event loop."""

    def __init__(self, *, max_batch: int, deadline_s: float, clock: Callable[[], float]) -> None:
        self._max_batch = max_batch
        self._deadline_s = deadline_s
        self._clock = clock
        self._waiting: dict[int, deque[SourceRecord]] = {}
        #: No play that waits came before this time.
        self._oldest_s = 0.0
        self._has_plays = asyncio.Event()
        self._has_batch = asyncio.Event()
        self.num_plays = 0

    def add(self, partition: int, records: Sequence[SourceRecord]) -> None:
        """Appends the partition's next records."""
        if not records:
            return
        if not self.num_plays:
            self._oldest_s = self._clock()
        self._waiting.setdefault(partition, deque()).extend(records)
        self.num_plays += len(records)
        self._has_plays.set()
        if self.has_full_batch:
            self._has_batch.set()

    @property
    def has_full_batch(self) -> bool:
        """Whether a full micro-batch waits."""
        return self.num_plays >= self._max_batch

    def drop(self, partition: int) -> int:
        """Drops a partition's plays; returns how many."""
        dropped = len(self._waiting.pop(partition, ()))
        self._shrink(dropped)
        return dropped

    async def wait_until_due(self) -> None:
        """Returns when a micro-batch is full, or the oldest play has waited for the deadline."""
        while True:
            await self._has_plays.wait()
            if self.has_full_batch:
                return
            remaining_s = self._oldest_s + self._deadline_s - self._clock()
            if remaining_s <= 0:
                return
            try:
                async with asyncio.timeout(remaining_s):
                    await self._has_batch.wait()
            except TimeoutError:
                if self.num_plays:
                    return

    def take(self, *, everything: bool = False) -> dict[int, list[SourceRecord]]:
        """Takes the next micro-batch: ``max_batch`` plays or all, divided among partitions, each in source order."""
        batch: dict[int, list[SourceRecord]] = {}
        left = num_taken = self.num_plays if everything else min(self._max_batch, self.num_plays)
        while left:
            quota = max(1, left // len(self._waiting))
            for partition in list(self._waiting):
                queue = self._waiting[partition]
                num = min(quota, left, len(queue))
                batch.setdefault(partition, []).extend(queue.popleft() for _ in range(num))
                left -= num
                if not queue:
                    del self._waiting[partition]
                if not left:
                    break
        # A partition that was served goes to the end of the order.
        for partition in batch:
            if partition in self._waiting:
                self._waiting[partition] = self._waiting.pop(partition)
        self._shrink(num_taken)
        return batch

    def _shrink(self, num: int) -> None:
        self.num_plays -= num
        if not self.has_full_batch:
            self._has_batch.clear()
        if not self.num_plays:
            self._has_plays.clear()
