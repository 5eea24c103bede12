"""Bounds what a worker fetches ahead: plays that wait for inference, and plays in flight, which are fetched but not committed.

Both take memory, and a crash replays them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.delivery.partition import PartitionTask
    from stream.delivery.play_buffer import PlayBuffer
    from stream.wire.records import Fetched


@dataclass(slots=True)
class _TaskPlays:
    num_plays: int = 0
    num_bytes: int = 0
    #: Of each fetch, the offset after its last play, and its bytes; oldest first.
    fetches: deque[tuple[int, int]] = field(default_factory=deque)


class InFlight:
    """Counts each task's plays in flight. Owned by the event loop.

    ``max_plays`` and ``max_bytes`` (of the values) hold for all tasks together; one fetch may exceed them.
    """

    def __init__(self, *, max_plays: int, max_bytes: int) -> None:
        self._max_plays = max_plays
        self._max_bytes = max_bytes
        self._plays_of: dict[PartitionTask, _TaskPlays] = {}

    @property
    def has_capacity(self) -> bool:
        """Whether more may be fetched."""
        held = self._plays_of.values()
        return sum(h.num_plays for h in held) < self._max_plays and sum(h.num_bytes for h in held) < self._max_bytes

    def holds(self, task: PartitionTask) -> bool:
        """Whether a task has uncommitted plays."""
        return self.num_plays(task) > 0

    def num_plays(self, task: PartitionTask) -> int:
        """How many uncommitted plays a task has; 0 for one that has ended."""
        held = self._plays_of.get(task)
        return 0 if held is None else held.num_plays

    def begin(self, task: PartitionTask) -> None:
        """Begins to count a new task, which has fetched nothing yet."""
        self._plays_of[task] = _TaskPlays()

    def fetched(self, task: PartitionTask, fetched: Fetched) -> None:
        """Counts a fetch of a task."""
        held = self._plays_of[task]
        num_bytes = sum(len(record.value or b"") for record in fetched.records)
        held.num_plays += len(fetched.records)
        held.num_bytes += num_bytes
        if fetched.records:  # a fetch can end after a control record, a checkpoint ends after a play
            held.fetches.append((fetched.records[-1].offset + 1, num_bytes))

    def committed(self, task: PartitionTask, num_plays: int, next_offset: int) -> None:
        """A checkpoint of all plays below ``next_offset`` is durable. A task that has ended is ignored."""
        held = self._plays_of.get(task)
        if held is None:
            return
        held.num_plays -= num_plays
        while held.fetches and held.fetches[0][0] <= next_offset:
            held.num_bytes -= held.fetches.popleft()[1]

    def end(self, task: PartitionTask) -> bool:
        """Stops counting a task that has ended; returns whether it had uncommitted plays."""
        held = self._plays_of.pop(task, None)
        return held is not None and held.num_plays > 0


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
