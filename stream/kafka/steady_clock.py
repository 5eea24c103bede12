"""A wall clock that ignores jumps, for latencies relative to timestamps of other machines.

    now = monotonic + offset        the offset follows changes of the system clock up to STEP_S at once, larger ones only after
                                    they have lasted for BELIEVED_AFTER_S

If the system clock is set wrong and then corrected, no latency shows it. If it stays at the new time, that is the time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Time servers correct smaller differences gradually; latencies tolerate them.
STEP_S = 0.5
#: Long enough for a time server or an operator to correct a mistake.
BELIEVED_AFTER_S = 300.0


class SteadyClock:
    """A replacement for ``time.time``. Units: seconds since 1970."""

    def __init__(
        self, wall: Callable[[], float] | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._monotonic = wall or time.time, monotonic
        self._offset_s = self._wall() - monotonic()
        self._apart_since_s: float | None = None

    def __call__(self) -> float:
        monotonic_s = self._monotonic()
        offset_s = self._wall() - monotonic_s
        if abs(offset_s - self._offset_s) <= STEP_S:
            self._offset_s, self._apart_since_s = offset_s, None
        elif self._apart_since_s is None:
            self._apart_since_s = monotonic_s
        elif monotonic_s - self._apart_since_s >= BELIEVED_AFTER_S:
            self._offset_s, self._apart_since_s = offset_s, None
        return monotonic_s + self._offset_s
