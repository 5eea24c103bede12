"""Counts consecutive failures of each partition: how long to wait before the next try, and when to stop trying."""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 5.0
#: A partition that fails this often, without a checkpoint and without a quiet time in between, will not recover by itself.
MAX_FAILURES, QUIET_S = 10, 600.0


class Retries:
    """Consecutive failures by partition. The pause before the next try is at first ``first_pause_s``, and doubles each time."""

    def __init__(
        self, clock: Callable[[], float], *, first_pause_s: float = FIRST_PAUSE_S, quiet_s: float = QUIET_S
    ) -> None:
        self._clock, self._first_pause_s, self._quiet_s = clock, first_pause_s, quiet_s
        self._failures: dict[int, tuple[int, float]] = {}

    def failed(self, partition: int) -> int:
        """Counts a failure; returns the number of failures in a row."""
        num, last_s = self._failures.get(partition, (0, 0.0))
        num = 1 if self._clock() - last_s > self._quiet_s else num + 1
        self._failures[partition] = num, self._clock()
        return num

    def succeeded(self, partition: int) -> None:
        """A checkpoint is durable: the next failure counts as the first."""
        self._failures.pop(partition, None)

    def pause_s(self, num_failures: int) -> float:
        """Seconds to wait after this many failures in a row."""
        return min(LAST_PAUSE_S, self._first_pause_s * 2.0 ** (num_failures - 1))
