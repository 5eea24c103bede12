"""A reference ranker that learns while it is compared: a Markov chain over the newest transitions between items.

    score(j) = Σ_d decay^d · P(j | play d back) + backoff · popularity(j)        d = 0 … lags - 1

P is the share of an item's newest transitions that led to j, shrunk as in :mod:`intentrec_core.baselines.markov`. The newest
transitions of all items are kept in one ring. Those of one item are linked from the newest to the oldest, so nothing has to be
removed: a link into a part of the ring that was overwritten ends the chain.

Shapes: N plays, V item rows, row 0 the unknown item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.baselines.popularity import PopularWindow
from intentrec_core.kernels import transitions
from intentrec_core.kernels.transitions import NONE

#: Transitions kept, a power of two: 4 MiB.
MAX_TRANSITIONS = 1 << 18
#: The score uses at most this many of an item's newest transitions. Without a limit, a popular item would cost milliseconds.
MAX_PER_ITEM = 128


class RankedCounts(Protocol):
    """What is popular: :class:`~intentrec_core.baselines.popularity.PopularWindow` is one."""

    def __len__(self) -> int:
        """All plays counted."""
        ...

    def counts_and_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Plays of each row, and the rows by their plays, most first, both read-only. Shapes: i64[R], i64[R]."""
        ...


class OnlineMarkov:
    """The newest transitions between item rows. Rows are those of one vocabulary, which may grow. ``num_added``: how many
    transitions were added so far.

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
        self.num_added = 0
        #: Of each transition the row that it led to, and the number of the next older one from the same row.
        self._ring = np.full((max_transitions, 2), NONE, dtype=np.int64)
        self._newest = np.full(0, NONE, dtype=np.int64)
        self._scores = np.zeros(0, dtype=np.float32)
        self._hidden = np.zeros(0, dtype=np.bool_)
        self.reserve(num_rows)

    @property
    def is_full(self) -> bool:
        """Whether every further transition replaces the oldest one."""
        return self.num_added >= len(self._ring)

    @property
    def num_rows(self) -> int:
        """V."""
        return len(self._newest)

    def reserve(self, num_rows: int) -> None:
        """Makes room for a vocabulary that has grown to ``num_rows``."""
        more = num_rows - self.num_rows
        if more > 0:
            self._newest = np.concatenate([self._newest, np.full(more, NONE, dtype=np.int64)])
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
        self.num_added = transitions.add(before, after, self.num_added, self._newest, self._ring)

    def among_top(
        self,
        rows: NDArray[np.int64],
        last_rows: Sequence[NDArray[np.int64]],
        k: int,
        popular: RankedCounts,
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
        return transitions.among_top(
            rows,
            last,
            last_starts,
            hidden,
            hidden_starts,
            k,
            MAX_PER_ITEM,
            weights,
            counts,
            order,
            self.num_added,
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
