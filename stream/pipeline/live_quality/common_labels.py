"""The reference for predicted intents: the most common label of the last 7 days of event time.

    observed labels of a batch ─▶ compared with the most common label as of the previous batch ─▶ counted for 7 days

Counts are kept per batch, not per play: a batch expires by its newest play.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import WEEK_S


class CommonLabels:
    """Counts how often each label of one head was observed lately. Time is the newest event time so far; no clock is read.

    Cost: O(labels) per batch; memory O(labels · batches in the window).
    """

    def __init__(self, num_labels: int, window_s: float = WEEK_S) -> None:
        self._window_s = window_s
        self._counts = np.zeros(num_labels, dtype=np.int64)
        self._batches: deque[tuple[float, NDArray[np.int64]]] = deque()
        self._now_s = float("-inf")

    @property
    def commonest(self) -> int | None:
        """The most common label; None before the first one."""
        return int(self._counts.argmax()) if self._counts.any() else None

    def add(self, observed_labels: NDArray[np.bool_], ts_s: NDArray[np.float64]) -> None:
        """Counts the labels observed with plays at event times ``ts_s``.

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
