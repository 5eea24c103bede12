"""Decides whether a worker is overloaded, so that it should do less for each play.

    lag above the bound ──▶ on ──▶ lag at half the bound ──▶ off

While it is on, a member's plays in one micro-batch share one answer (:mod:`stream.pipeline.coalescing`), and a micro-batch takes
all waiting plays, so that more of them share an answer. Between the two thresholds nothing changes: the drop in lag that
coalescing causes must not switch it off and on again.
"""

from __future__ import annotations

from collections.abc import Callable

#: Part of the bound. At half of it, a worker that keeps up stays below the bound; one that does not needs as long again to reach
#: it.
_OFF_RATIO = 0.5


class Overload:
    """Owned by the event loop. ``above_lag``: the bound in plays; 0 is never. ``is_busy``: whether a full micro-batch waits."""

    def __init__(self, above_lag: int, is_busy: Callable[[], bool]) -> None:
        self._above_lag, self._is_busy = above_lag, is_busy
        self.is_on = False

    def saw_lag(self, num_plays: int) -> None:
        """Reports the lag: plays in the log that are in no checkpoint."""
        if self._above_lag:
            bound = self._above_lag * _OFF_RATIO if self.is_on else self._above_lag
            self.is_on = num_plays > bound

    def coalesces(self) -> bool:
        """Whether the next micro-batch is coalesced. The lag is measured once a second, and may be gone by now."""
        return self.is_on and self._is_busy()
