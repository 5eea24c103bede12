"""Quantiles of latencies in bounded memory, by the DDSketch algorithm (Masson, Rim, Lee: DDSketch, VLDB 2019).

Two digests that alternate give a sliding view for the screen. A single digest gives the figures of a whole run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddsketch import LogCollapsingLowestDenseDDSketch

if TYPE_CHECKING:
    from collections.abc import Callable

#: A quantile is off by at most 1 %, far below the noise of a latency.
RELATIVE_ACCURACY = 0.01
#: Bounds the memory. With this accuracy they span 17 orders of magnitude below the largest latency.
_MAX_BUCKETS = 2048


class LatencyDigest:
    """Counts latencies; its quantiles are accurate within RELATIVE_ACCURACY.

    Units: seconds. A latency is negative if the producer's clock is ahead.
    Cost: 30 kB for latencies from 0.1 ms to an hour, 140 kB for any values; 3 µs to add one, 0.1 ms for a quantile.
    """

    def __init__(self) -> None:
        self._sketch = LogCollapsingLowestDenseDDSketch(RELATIVE_ACCURACY, _MAX_BUCKETS)

    @property
    def count(self) -> int:
        """Number of latencies counted."""
        return int(self._sketch.count)

    def add(self, latency_s: float) -> None:
        """Counts one latency."""
        self._sketch.add(latency_s)

    def merge(self, other: LatencyDigest) -> None:
        """Adds everything that ``other`` has counted."""
        self._sketch.merge(other._sketch)

    def quantile_s(self, q: float) -> float | None:
        """The latency below which a share ``q`` of all latencies lies; None before the first one."""
        quantile_s = self._sketch.get_quantile_value(q)
        return None if quantile_s is None else float(quantile_s)


class SlidingDigest:
    """Quantiles over a window of ``span_s`` to twice ``span_s``, by the given clock."""

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
        """The quantile as of now; None if no latency was counted recently."""
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
