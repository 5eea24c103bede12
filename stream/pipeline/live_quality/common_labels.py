"""The reference every predicted intent is compared with: the label that was commonest in the last 7 days of event time.

    observed_labels of a batch ─▶ compared with the commonest label as of the batch before ─▶ counted, and gone after 7 days

Counts are kept a batch, not a play: expiry is exact to the newest play of a batch.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import WEEK_S


class CommonLabels:
    """How often each label of one head came true lately. Time is the newest event time counted, never a clock.

    Cost: O(labels) a batch; memory O(labels · batches in the window).
    """

    def __init__(self, num_labels: int, window_s: float = WEEK_S) -> None:
        self._window_s = window_s
        self._counts = np.zeros(num_labels, dtype=np.int64)
        self._batches: deque[tuple[float, NDArray[np.int64]]] = deque()
        self._now_s = float("-inf")

    @property
    def commonest(self) -> int | None:
        """The commonest label; None before the first one."""
        return int(self._counts.argmax()) if self._counts.any() else None

    def add(self, observed_labels: NDArray[np.bool_], ts_s: NDArray[np.float64]) -> None:
        """Counts which labels came true with the plays at event times ``ts_s``.

        Shapes: observed_labels bool[N, L]; ts_s f64[N].
        """
        if not len(ts_s):
            return
        newest_s = float(ts_s.max())
        self._now_s = max(self._now_s, newest_s)
        counts = observed_labels.sum(axis=0, dtype=np.int64)
        self._counts += counts
        self._batches.append((newest_s, counts))
        while self._batches and self._batches[0][0] <= self._now_s - self._window_s:
            self._counts -= self._batches.popleft()[1]
