"""A reference ranker that learns while it is compared: a Markov chain over the newest transitions between items.

    score(j) = Σ_d decay^d · P(j | play d back) + backoff · popularity(j)        d = 0 … lags - 1

P is the share of an item's newest transitions that led to j, shrunk as in :mod:`intentrec_core.baselines.markov`. The newest
transitions of all items are kept in one ring. Those of one item are linked from the newest to the oldest, so nothing has to be
removed: a link into a part of the ring that was overwritten ends the chain.

Shapes: N plays, V item rows, row 0 the unknown item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.baselines.popularity import PopularWindow
from intentrec_core.kernels.dense import compiled

#: Transitions kept, a power of two: 4 MiB.
MAX_TRANSITIONS = 1 << 18
#: Of one item at most so many newest transitions are looked at, so that what everybody plays does not cost milliseconds.
MAX_PER_ITEM = 128

_NONE = -1


class OnlineMarkov:
    """The newest transitions between item rows. Rows are those of one vocabulary, which may grow.

    ``settings``: what the score looks at, but for ``spread`` and the window of popularity, which the caller counts.

    Raises: ValueError with the value when max_transitions is no power of two.
    Cost: memory O(max_transitions + V).
    """

    def __init__(
        self,
        num_rows: int,
        settings: MarkovSettings | None = None,
        *,
        max_transitions: int = MAX_TRANSITIONS,
    ) -> None:
        if max_transitions < 1 or max_transitions.bit_count() > 1:
            raise ValueError(f"max_transitions is {max_transitions}; allowed: a power of two")
        self.settings = settings or MarkovSettings()
        self._num_added = 0
        #: Of each transition the row that it led to, and the number of the next older one from the same row.
        self._ring = np.full((max_transitions, 2), _NONE, dtype=np.int64)
        self._newest = np.full(0, _NONE, dtype=np.int64)
        self._scores = np.zeros(0, dtype=np.float32)
        self._hidden = np.zeros(0, dtype=np.bool_)
        self.reserve(num_rows)

    @property
    def num_rows(self) -> int:
        """V."""
        return len(self._newest)

    def reserve(self, num_rows: int) -> None:
        """Makes room for a vocabulary that has grown to ``num_rows``."""
        more = num_rows - self.num_rows
        if more > 0:
            self._newest = np.concatenate([self._newest, np.full(more, _NONE, dtype=np.int64)])
            self._scores = np.zeros(num_rows, dtype=np.float32)
            self._hidden = np.zeros(num_rows, dtype=np.bool_)

    def compile(self) -> None:
        """Compiles what the other methods call: seconds where numba's cache is empty."""
        empty = np.zeros(0, dtype=np.int64)
        self.add(empty, empty)
        self.among_top(empty, [], 1, PopularWindow())

    def add(self, before: NDArray[np.int64], after: NDArray[np.int64]) -> None:
        """Counts transitions, the newest last. Those from or to row 0, the unknown item, are not counted.

        Shapes: i64[N], i64[N].
        Cost: some 10 ns a transition.
        """
        self._num_added = _add(before, after, self._num_added, self._newest, self._ring)

    def among_top(
        self,
        rows: NDArray[np.int64],
        last_rows: Sequence[NDArray[np.int64]],
        k: int,
        popular: PopularWindow,
        excluded: Sequence[NDArray[np.int64]] | None = None,
    ) -> NDArray[np.bool_]:
        """For each row, whether it is among the ``k`` best after the plays ``last_rows`` (oldest first, any number).

        Rows with equal scores share their ranks, as in an evaluation. ``excluded`` rows are left out of the ranking.

        Shapes: rows i64[N]; last_rows and excluded, one i64[any] for each row -> bool[N].
        Cost: O(lags · MAX_PER_ITEM + number of excluded rows) for each row: some microseconds.
        """
        last, last_starts = _joined([own[-self.settings.lags :] for own in last_rows])
        hidden, hidden_starts = _joined(excluded if excluded is not None else [rows[:0]] * len(rows))
        counts, order = popular.counts_and_order()
        chain = self.settings
        weights = np.array([chain.shrinkage, chain.decay, chain.backoff / max(1, len(popular))])
        return _among_top(
            rows,
            last,
            last_starts,
            hidden,
            hidden_starts,
            k,
            weights,
            counts,
            order,
            self._num_added,
            self._newest,
            self._ring,
            self._scores,
            self._hidden,
        )


def _joined(parts: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The arrays one after another, and where each begins, with the end of the last."""
    starts = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return (np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)), starts


@compiled
def _add(before: Any, after: Any, num_added: Any, newest: Any, ring: Any) -> Any:
    for i in range(len(before)):
        if before[i] <= 0 or after[i] <= 0:
            continue
        place = num_added & (len(ring) - 1)
        ring[place, 0] = after[i]
        ring[place, 1] = newest[before[i]]
        newest[before[i]] = num_added
        num_added += 1
    return num_added


@compiled
def _among_top(
    rows: Any,
    last: Any,
    last_starts: Any,
    hidden: Any,
    hidden_starts: Any,
    k: Any,
    weights: Any,
    counts: Any,
    order: Any,
    num_added: Any,
    newest: Any,
    ring: Any,
    scores: Any,
    is_hidden: Any,
) -> Any:
    """``scores`` f32[V] and ``is_hidden`` bool[V] are scratch space: all 0 before and after."""
    found = np.zeros(len(rows), dtype=np.bool_)
    shrinkage, decay, backoff = weights[0], weights[1], np.float32(weights[2])
    oldest, num_rows = max(0, num_added - len(ring)), len(scores)
    reached = np.empty(0, dtype=np.int64)
    led_to = np.empty(MAX_PER_ITEM, dtype=np.int64)
    for i in range(len(rows)):
        if rows[i] <= 0:
            continue
        num_reached = 0
        capacity = (last_starts[i + 1] - last_starts[i]) * MAX_PER_ITEM
        if len(reached) < capacity:
            reached = np.empty(capacity, dtype=np.int64)
        weight = 1.0
        for at in range(last_starts[i + 1] - 1, last_starts[i] - 1, -1):
            number, transition = 0, newest[last[at]] if last[at] > 0 else _NONE
            while transition >= oldest and number < MAX_PER_ITEM:
                place = transition & (len(ring) - 1)
                led_to[number], transition = ring[place, 0], ring[place, 1]
                number += 1
            share = np.float32(weight / (number + shrinkage))
            for row in led_to[:number]:
                if scores[row] == 0:
                    reached[num_reached] = row
                    num_reached += 1
                scores[row] += share
            weight *= decay
        for at in range(hidden_starts[i], hidden_starts[i + 1]):
            if hidden[at] < num_rows:
                is_hidden[hidden[at]] = True
        own = scores[rows[i]] + (backoff * np.float32(counts[rows[i]]) if rows[i] < len(counts) else np.float32(0))
        if own > 0 and not is_hidden[rows[i]]:
            better, equal = 0, 0
            for at in range(num_reached):
                row = reached[at]
                if row != rows[i] and not is_hidden[row]:
                    score = scores[row] + (backoff * np.float32(counts[row]) if row < len(counts) else np.float32(0))
                    better += score > own
                    equal += score == own
            for at in range(len(order)):
                row = order[at]
                score = backoff * np.float32(counts[row])
                if score < own or better >= k:
                    break
                if row != rows[i] and row < num_rows and scores[row] == 0 and not is_hidden[row]:
                    better += score > own
                    equal += score == own
            found[i] = 1 + better + 0.5 * equal <= k
        for at in range(num_reached):
            scores[reached[at]] = 0
        for at in range(hidden_starts[i], hidden_starts[i + 1]):
            if hidden[at] < num_rows:
                is_hidden[hidden[at]] = False
    return found
