"""Plays fetched and not yet committed: what memory holds of them, and what a crash would replay, is bounded here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.delivery.partition import PartitionTask
    from stream.wire.records import Fetched


@dataclass(slots=True)
class _OfTask:
    num_plays: int = 0
    num_bytes: int = 0
    #: Per fetch, the offset behind its last play, and its bytes; oldest first.
    fetches: deque[tuple[int, int]] = field(default_factory=deque)


class InFlight:
    """By task, how many plays were fetched and are not committed. Owned by the event loop.

    ``max_plays`` and ``max_bytes`` (of values, over all tasks) may be exceeded by one fetch.
    """

    def __init__(self, *, max_plays: int, max_bytes: int) -> None:
        self._max_plays = max_plays
        self._max_bytes = max_bytes
        self._partition_tasks: dict[PartitionTask, _OfTask] = {}

    @property
    def has_capacity(self) -> bool:
        """Whether more may be fetched."""
        tasks = self._partition_tasks.values()
        return (
            sum(task.num_plays for task in tasks) < self._max_plays
            and sum(task.num_bytes for task in tasks) < self._max_bytes
        )

    def holds(self, task: PartitionTask) -> bool:
        """Whether plays of a task wait for a commit."""
        held = self._partition_tasks.get(task)
        return held is not None and held.num_plays > 0

    def begin(self, task: PartitionTask) -> None:
        """A task begins, with nothing fetched."""
        self._partition_tasks[task] = _OfTask()

    def fetched(self, task: PartitionTask, fetched: Fetched) -> None:
        """Counts what was fetched for a task."""
        held = self._partition_tasks[task]
        num_bytes = sum(len(record.value or b"") for record in fetched.records)
        held.num_plays += len(fetched.records)
        held.num_bytes += num_bytes
        if fetched.records:  # a fetch may end behind a transaction's end, a checkpoint never does
            held.fetches.append((fetched.records[-1].offset + 1, num_bytes))

    def committed(self, task: PartitionTask, num_plays: int, next_offset: int) -> None:
        """A checkpoint up to before ``next_offset`` is durable; of a task that has ended it changes nothing."""
        held = self._partition_tasks.get(task)
        if held is None:
            return
        held.num_plays -= num_plays
        while held.fetches and held.fetches[0][0] <= next_offset:
            held.num_bytes -= held.fetches.popleft()[1]

    def end(self, task: PartitionTask) -> bool:
        """A task has ended: nothing of it is outstanding. Returns whether something was."""
        held = self._partition_tasks.pop(task, None)
        return held is not None and held.num_plays > 0
