"""Detects stalls: /livez fails if a partition has work but finishes none of it for too long.

It covers an output that is never acknowledged, an inference that hangs, and a consumer that is stuck after a broker restart, with
all of its partitions or with one. Each partition is tracked separately, because progress of one says nothing about another.
Restoring a partition is not tracked: it has its own deadline, which ends the process. All times are monotonic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Waiting:
    """For each partition, since when it has been waiting. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s: dict[int, float] = {}

    def begin(self, partition: int) -> None:
        """The partition is waiting; if it already was, its start time stays."""
        self._since_s.setdefault(partition, self._clock())

    def end(self, partition: int) -> None:
        """The partition is no longer waiting."""
        self._since_s.pop(partition, None)

    def only(self, partitions: Iterable[int]) -> None:
        """Exactly these partitions are waiting; start times of those that already were stay."""
        now_s = self._clock()
        self._since_s = {partition: self._since_s.get(partition, now_s) for partition in partitions}

    def begin_anew(self) -> None:
        """Restarts the clock of every waiting partition."""
        self._since_s = dict.fromkeys(self._since_s, self._clock())

    def longest_s(self) -> float:
        """How long the longest-waiting partition has been waiting; 0 if none is."""
        return self._clock() - min(self._since_s.values()) if self._since_s else 0.0


class WorkProgress:
    """Tracks the progress of every partition of a worker. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._work = Waiting(clock)
        self._standing = Waiting(clock)

    def work_arrived(self, partition: int) -> None:
        """Plays of the partition were fetched."""
        self._standing.end(partition)
        self._work.begin(partition)

    def work_done(self, partition: int, *, idle: bool) -> None:
        """A checkpoint of the partition was committed, or its task ended. ``idle``: the partition has no work left."""
        self._work.end(partition)
        if not idle:
            self._work.begin(partition)

    def saw_lag(self, standing: Iterable[int]) -> None:
        """The log ends were compared with the fetched offsets: ``standing`` have unfetched plays, and none arrived."""
        self._standing.only(standing)

    def broker_away(self) -> None:
        """The broker is down, so a restart would not help. Every deadline restarts when the broker is back."""
        self._standing.only(())
        self._work.begin_anew()

    def stalled_s(self) -> float:
        """The longest time for which a partition with work has made no progress; 0 if none is waiting."""
        return max(self._work.longest_s(), self._standing.longest_s())
