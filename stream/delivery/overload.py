"""Whether a worker is so far behind that it should do less for each play: the one place where that is decided.

    lag above the bound ──▶ on ──▶ lag at half the bound ──▶ off

While it is on, plays of one member that meet in a micro-batch share one answer (:mod:`stream.pipeline.coalescing`),
and micro-batches
take all that waits, so that more of them meet. Between the two thresholds nothing changes: what coalescing has drained must
not switch it off and on again.
"""

from __future__ import annotations

from collections.abc import Callable

#: Of the bound. At half of it a worker that can keep up is clear of it, and one that cannot needs as long again to come back.
_OFF_SHARE = 0.5


class Overload:
    """Owned by the event loop. ``above_lag`` is the bound, in plays; 0: never. ``is_busy``: a full micro-batch waits."""

    def __init__(self, above_lag: int, is_busy: Callable[[], bool]) -> None:
        self._above_lag, self._is_busy = above_lag, is_busy
        self.is_on = False

    def saw_lag(self, num_plays: int) -> None:
        """So many plays are in the log and in no checkpoint."""
        if self._above_lag:
            bound = self._above_lag * _OFF_SHARE if self.is_on else self._above_lag
            self.is_on = num_plays > bound

    def coalesces(self) -> bool:
        """Whether the next micro-batch is coalesced: the lag is looked at every second, and may be gone by now."""
        return self.is_on and self._is_busy()
