"""Decayed counts of plays by item, and the item's age, as of any moment of event time: what is popular now, and what is new.

    S_τ(i, t) = Σ over plays of item i before t of exp(−(t − t_play) / τ)

Between two plays of an item log S falls on a straight line. The sums right after each play are computed once, in one pass through
time; the count at any moment is then one lookup, one subtraction and one exponential, exactly.

A moment is cut to the grid of the refresh that serving has, so training and evaluation see counts as old as serving does: a play
is never counted before the next point of the grid.

Shapes: P plays, V item rows (row 0 no item, never counted), N moments, R rows, C columns: one per decay, and the age.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.features.buckets import DAY_S
from intentrec_core.features.count_columns import DECAYS_S, NUM_COLUMNS
from intentrec_core.kernels.decayed_counts import logs_at_moments, logs_of_pairs, sums_after_events


class PlayCounts:
    """Counts of given plays.

    ``rows`` i64[P] and ``ts_s`` f64[P] are the plays, in any order. ``refresh_s``: how far apart the moments are at which counts
    are taken, in whole seconds: a moment is cut to a multiple of it, which with a fraction could be rounded to a later time.

    Cost: O(P log P) to build; 40 bytes a play.
    """

    def __init__(self, rows: NDArray[np.int64], ts_s: NDArray[np.float64], num_rows: int, *, refresh_s: int) -> None:
        known = np.flatnonzero(rows > 0)
        order = known[np.lexsort((ts_s[known], rows[known]))]
        self._num_rows, self._refresh_s = num_rows, refresh_s
        at_s = np.ascontiguousarray(ts_s[order])
        begin = np.searchsorted(rows[order], np.arange(num_rows + 1))
        decays_s, logs = np.array(DECAYS_S), np.empty((len(order), len(DECAYS_S)))
        sums_after_events(at_s, begin, decays_s, logs)
        np.log(logs, out=logs)
        self._plays = (at_s, begin, decays_s, logs, DAY_S)

    def columns(self, ts_s: NDArray[np.float64], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """log(1 + count) for each decay, and log(1 + days since the item's first play), as of the last point of the grid at or
        before each moment: of all items, or of some. All are 0 for an item that was not played before.

        Shapes: f64[N], i64[R] -> f32[N, C, R].
        Cost: O(N · R) and one pass through the plays of the rows; without the GIL.
        """
        rows = np.arange(self._num_rows) if rows is None else rows
        at_s = self._points(ts_s)
        found = np.empty((len(at_s), NUM_COLUMNS, len(rows)), dtype=np.float32)
        logs_at_moments(*self._plays, rows, at_s, np.argsort(at_s, kind="stable"), found)
        return _damped(found)

    def of_pairs(self, ts_s: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As :meth:`columns`, of one item at each moment. Shapes: f64[N], i64[N] -> f32[N, C]."""
        found = np.empty((len(rows), NUM_COLUMNS), dtype=np.float32)
        logs_of_pairs(*self._plays, rows, self._points(ts_s), found)
        return _damped(found)

    def _points(self, ts_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.floor(ts_s / self._refresh_s) * self._refresh_s


def _damped(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log counts and ages to log(1 + count) and log(1 + age), in place. Shape: f32[N, C, ...]."""
    counts = found[:, :-1]
    np.exp(counts, out=counts)
    found += 1.0
    return np.log(found, out=found)
