"""Whether the worker gets anywhere: work that waits while nothing of its partition is finished for too long makes /livez fail.

Known stalls it answers: an output that is never acknowledged, an inference that hangs, a consumer that is stuck after a broker's
restart, with all of its partitions or with one. Partitions are told apart: what one gets done says nothing of another. A restore
is not counted: it has a deadline of its own, which ends the process. Monotonic time only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Waiting:
    """By partition, since when something waits. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s: dict[int, float] = {}

    def begin(self, partition: int) -> None:
        """Something of the partition waits; what did before goes on waiting."""
        self._since_s.setdefault(partition, self._clock())

    def end(self, partition: int) -> None:
        """Nothing of the partition waits any more."""
        self._since_s.pop(partition, None)

    def only(self, partitions: Iterable[int]) -> None:
        """These wait, or go on waiting, and no others."""
        now_s = self._clock()
        self._since_s = {partition: self._since_s.get(partition, now_s) for partition in partitions}

    def begin_anew(self) -> None:
        """All that wait have waited for no time yet."""
        self._since_s = dict.fromkeys(self._since_s, self._clock())

    def longest_s(self) -> float:
        """How long the oldest has waited; 0 when none does."""
        return self._clock() - min(self._since_s.values()) if self._since_s else 0.0


class WorkProgress:
    """Remembers by partition since when something waits. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._work = Waiting(clock)
        self._standing = Waiting(clock)

    def work_arrived(self, partition: int) -> None:
        """Plays of a partition were fetched."""
        self._standing.end(partition)
        self._work.begin(partition)

    def work_done(self, partition: int, *, idle: bool) -> None:
        """A checkpoint of a partition is durable, or its task has ended; ``idle``: nothing of it is left to do."""
        self._work.end(partition)
        if not idle:
            self._work.begin(partition)

    def saw_lag(self, standing: Iterable[int]) -> None:
        """The log's ends were compared with what was fetched; of ``standing`` there is more, and none of it has come since."""
        self._standing.only(standing)

    def broker_away(self) -> None:
        """Nobody gets anywhere without a broker, and no restart helps: what waits has its full time once the broker is back."""
        self._standing.only(())
        self._work.begin_anew()

    def stalled_s(self) -> float:
        """How long something has waited without anything of its partition being finished; 0 when nothing waits."""
        return max(self._work.longest_s(), self._standing.longest_s())
