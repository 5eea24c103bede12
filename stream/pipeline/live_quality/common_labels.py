"""The reference for predicted intents: the most common label of each head in the last 7 days of event time.

    observed labels of a batch ─▶ compared with the most common labels as of the previous batch ─▶ counted for 7 days

Counts are kept by spans of time, not by play: a span has the batches of some ten minutes, and expires by its newest play.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import WEEK_S
from intentrec_core.kernels.judged import add_labels, commonest_labels

#: Of the window. Batches of one play would otherwise be a hundred million a week.
_SPANS_PER_WINDOW = 1_000


@dataclass(slots=True)
class _Span:
    """What was counted in a span of event time, which began with the play at ``began_s``. Shape: counts i64[S]."""

    began_s: float
    newest_s: float
    counts: NDArray[np.int64]


class CommonLabels:
    """Counts how often each label was observed lately. Time is the newest event time so far; no clock is read.

    ``first`` i64[M + 1]: where the labels of each of M heads begin among all S labels side by side, and their end.

    Cost: O(labels) per batch; memory O(labels) for each of a thousand spans.
    """

    def __init__(self, num_labels: Sequence[int], window_s: float = WEEK_S) -> None:
        self.first: NDArray[np.int64] = np.cumsum([0, *num_labels])
        self._window_s = window_s
        self._counts = np.zeros(sum(num_labels), dtype=np.int64)
        self._spans: deque[_Span] = deque()
        self._now_s = float("-inf")

    @property
    def commonest(self) -> NDArray[np.int64]:
        """The most common label of each head; -1 before its first one. Shape: i64[M]."""
        found: NDArray[np.int64] = commonest_labels(self._counts, self.first)
        return found

    def add(self, observed_labels: NDArray[np.bool_], ts_s: NDArray[np.float64]) -> None:
        """Counts the labels observed with plays at event times ``ts_s``.

        Shapes: observed_labels bool[N, S]; ts_s f64[N].
        """
        if not len(ts_s):
            return
        newest_s = float(ts_s.max())
        self._now_s = max(self._now_s, newest_s)
        spans = self._spans
        if not spans or newest_s >= spans[-1].began_s + self._window_s / _SPANS_PER_WINDOW:
            spans.append(_Span(newest_s, newest_s, np.zeros_like(self._counts)))
        spans[-1].newest_s = max(spans[-1].newest_s, newest_s)
        add_labels(observed_labels, self._counts, spans[-1].counts)
        while spans and spans[0].newest_s <= self._now_s - self._window_s:
            self._counts -= spans.popleft().counts
