"""Whether the worker gets anywhere: work that waits while nothing is finished for too long makes /livez fail.

Known stalls it answers: a broker that never acknowledges, an inference that hangs, a consumer that is stuck after a broker's
restart. A restore is not counted: it has a deadline of its own, which ends the process. Monotonic time only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Progress:
    """Remembers since when something waits. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._working_since_s: float | None = None
        self._behind_since_s: float | None = None

    def work_arrived(self) -> None:
        """Plays were fetched."""
        self._behind_since_s = None
        if self._working_since_s is None:
            self._working_since_s = self._clock()

    def work_done(self, *, idle: bool) -> None:
        """A cut is durable; ``idle``: nothing is left to do."""
        self._working_since_s = None if idle else self._clock()

    def saw_lag(self, *, behind: bool) -> None:
        """The log's end was compared with what was fetched; ``behind``: there is more, and none of it has come since."""
        if not behind:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = self._clock()

    def stalled_s(self) -> float:
        """How long something has waited without anything being finished; 0 when nothing waits."""
        since = [since_s for since_s in (self._working_since_s, self._behind_since_s) if since_s is not None]
        return self._clock() - min(since) if since else 0.0
