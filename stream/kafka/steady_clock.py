"""The time of day, without its jumps: for latencies, which are differences to timestamps that other machines gave.

    now = monotonic + offset        offset follows the system's clock at once by up to STEP_S, past that after BELIEVED_AFTER_S

A clock that somebody, or a bad time server, sets wrong and then right again shows in no latency; one that stays is the time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Time servers slew what is less, and a latency can live with it.
STEP_S = 0.5
#: Long enough for a time server to notice its mistake, or somebody theirs.
BELIEVED_AFTER_S = 300.0


class SteadyClock:
    """Called like time.time. Units: seconds since 1970."""

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
