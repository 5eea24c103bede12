"""How often each item was played within a window of time, as of moments that only move forward.

It reads a recorded table from its start to its end. :mod:`intentrec_core.baselines.popularity` does the same for plays that
arrive one by one, and keeps a ranking besides.

Shapes: P plays in the order of time, V item rows (row 0: unknown item).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class WindowCounts:
    """Counts of plays by item row over the last ``window_s`` seconds (inf: over all time).

    ``row`` i64[P] and ``ts_s`` f64[P] are the plays that may be counted, in the order of time.
    """

    def __init__(self, row: NDArray[np.int64], ts_s: NDArray[np.float64], num_rows: int, window_s: float) -> None:
        self._row, self._ts_s, self._window_s = row, ts_s, window_s
        self._counts = np.zeros(num_rows, dtype=np.float32)
        self._low = self._high = 0

    def at(self, num_plays: int, now_s: float) -> NDArray[np.float32]:
        """Counts over the first ``num_plays`` plays, without those that are ``window_s`` or more older than ``now_s``.

        The array is this object's own and changes at the next call. Shape: f32[V].

        Raises: ValueError when a call goes back in time.
        """
        if num_plays < self._high:
            raise ValueError(f"{num_plays} plays after {self._high}: the counts only move forward")
        np.add.at(self._counts, self._row[self._high : num_plays], np.float32(1))
        self._high = num_plays
        outside = int(np.searchsorted(self._ts_s, now_s - self._window_s, side="right"))
        low = min(max(outside, self._low), num_plays)
        np.subtract.at(self._counts, self._row[self._low : low], np.float32(1))
        self._low = low
        return self._counts
