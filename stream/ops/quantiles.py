"""Quantiles of latencies in constant memory: counts in buckets that each are 2 % wide.

    bucket(x) = ⌊log(x / LOWEST_S) / log(GROWTH)⌋          quantile = the middle of the bucket where the rank falls

Two digests in turn make a sliding view for the screen; one alone makes the figure of a whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: A quantile is off by half a bucket at most: 1 %, far below the noise of a latency.
GROWTH = 1.02
LOWEST_S = 1e-4
HIGHEST_S = 3600.0
_NUM_BUCKETS = math.ceil(math.log(HIGHEST_S / LOWEST_S) / math.log(GROWTH)) + 1


class LatencyDigest:
    """Counts latencies and answers quantiles within 1 %.

    Units: seconds. Values below LOWEST_S or above HIGHEST_S count as these.
    Cost: 7 kB; O(1) to add, O(buckets) to ask.
    """

    def __init__(self) -> None:
        self.count = 0
        self._buckets = [0] * _NUM_BUCKETS

    def add(self, latency_s: float) -> None:
        """Counts one latency."""
        bounded = min(max(latency_s, LOWEST_S), HIGHEST_S)
        self._buckets[int(math.log(bounded / LOWEST_S) / math.log(GROWTH))] += 1
        self.count += 1

    def merge(self, other: LatencyDigest) -> None:
        """Counts everything that ``other`` has counted."""
        self._buckets = [mine + theirs for mine, theirs in zip(self._buckets, other._buckets, strict=True)]
        self.count += other.count

    def quantile_s(self, q: float) -> float | None:
        """The latency that a share ``q`` of all counted ones does not exceed; None before the first one."""
        if not self.count:
            return None
        rank = max(1, math.ceil(q * self.count))
        seen = 0
        for bucket, count in enumerate(self._buckets):
            seen += count
            if seen >= rank:
                return LOWEST_S * GROWTH ** (bucket + 0.5)
        raise AssertionError("counts and buckets disagree")


class SlidingDigest:
    """Quantiles over the last ``span_s`` to twice that, by the clock given."""

    def __init__(self, span_s: float, clock: Callable[[], float]) -> None:
        self._span_s = span_s
        self._clock = clock
        self._current, self._previous = LatencyDigest(), LatencyDigest()
        self._turned_s = clock()

    def add(self, latency_s: float) -> None:
        """Counts one latency now."""
        self._turn()
        self._current.add(latency_s)

    def quantile_s(self, q: float) -> float | None:
        """As of now; None when nothing was counted lately."""
        self._turn()
        both = LatencyDigest()
        both.merge(self._previous)
        both.merge(self._current)
        return both.quantile_s(q)

    def _turn(self) -> None:
        past_s = self._clock() - self._turned_s
        if past_s < self._span_s:
            return
        self._previous = self._current if past_s < 2 * self._span_s else LatencyDigest()
        self._current = LatencyDigest()
        self._turned_s = self._clock()
