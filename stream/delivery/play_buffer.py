"""Plays that were fetched and wait for inference: bounded, by partition, cut into micro-batches across users.

A micro-batch is ready when ``max_batch`` plays wait, or when the oldest has waited for the deadline. It is shared out among
the partitions that have plays, so that a partition with a backlog cannot starve the others. No clock but the one injected.
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
        self._oldest_s = 0.0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self.num_plays = 0

    def add(self, partition: int, records: Sequence[SourceRecord]) -> None:
        """Appends records that follow what is held of the partition."""
        if not records:
            return
        if not self.num_plays:
            self._oldest_s = self._clock()
        self._waiting.setdefault(partition, deque()).extend(records)
        self.num_plays += len(records)
        self._some.set()
        if self.has_full_batch:
            self._enough.set()

    @property
    def has_full_batch(self) -> bool:
        """Whether a micro-batch's worth of plays waits."""
        return self.num_plays >= self._max_batch

    def drop(self, partition: int) -> int:
        """Forgets a partition's plays; returns how many."""
        dropped = len(self._waiting.pop(partition, ()))
        self._shrink(dropped)
        return dropped

    async def wait_until_due(self) -> None:
        """Returns when a micro-batch is full, or the oldest play has waited for the deadline."""
        while True:
            await self._some.wait()
            if self.has_full_batch:
                return
            rest_s = self._oldest_s + self._deadline_s - self._clock()
            if rest_s <= 0:
                return
            try:
                async with asyncio.timeout(rest_s):
                    await self._enough.wait()
            except TimeoutError:
                if self.num_plays:
                    return

    def take(self, *, everything: bool = False) -> dict[int, list[SourceRecord]]:
        """The next micro-batch: ``max_batch`` plays or all, shared out among partitions, each in source order."""
        batch: dict[int, list[SourceRecord]] = {}
        room = self.num_plays if everything else min(self._max_batch, self.num_plays)
        taken = room
        while room:
            share = max(1, room // len(self._waiting))
            for partition in list(self._waiting):
                queue = self._waiting[partition]
                num = min(share, room, len(queue))
                batch.setdefault(partition, []).extend(queue.popleft() for _ in range(num))
                room -= num
                if not queue:
                    del self._waiting[partition]
                if not room:
                    break
        # A partition that was served goes behind the others.
        for partition in batch:
            if partition in self._waiting:
                self._waiting[partition] = self._waiting.pop(partition)
        self._shrink(taken)
        self._oldest_s = self._clock()
        return batch

    def _shrink(self, num: int) -> None:
        self.num_plays -= num
        if not self.has_full_batch:
            self._enough.clear()
        if not self.num_plays:
            self._some.clear()
