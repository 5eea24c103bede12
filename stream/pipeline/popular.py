"""What is popular now: the reference for every prediction, and the fallback list for members without a known item.

Where the trainer writes tables of counts, all of it is in the newest one (:class:`PopularTable`). Until there is one, a worker
counts by itself (:class:`PopularNow`): its counts begin with those of the bundle, which expire a week after its newest play, and
it adds what it folds. It sees its own partitions only; because members are spread over partitions by hash, its counts are a
sample of all plays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW
from intentrec_core.baselines.popularity import WEEK_S, PopularWindow

#: Seeding adds plays one at a time, at about 1 µs each; a bundle with more plays is scaled down to this many.
MAX_SEEDED_PLAYS = 200_000
#: The counts of a fallback list are at most this many plays old: computing them for a large catalogue takes milliseconds.
_REFRESH_PLAYS = 1_024
#: Decayed plays are counted in parts of one, as whole numbers: the Markov chain beside the model counts in these.
_PARTS = 1_000


class PopularNow:
    """Plays of the last 7 days of event time, by item row.

    ``bundle_counts`` f32[V]: the bundle's plays of each item in the 7 days up to ``counted_at_s``. Where that time is not known
    (-inf), they are in no window: lists add them to the plays counted here.
    """

    def __init__(self, bundle_counts: NDArray[np.float32], counted_at_s: float) -> None:
        self.window = PopularWindow(WEEK_S, num_rows=len(bundle_counts))
        total = float(bundle_counts.sum())
        self.window.seed(np.ceil(bundle_counts * min(1.0, MAX_SEEDED_PLAYS / max(total, 1.0))), counted_at_s)
        self._num_rows = len(bundle_counts)
        self._undated_counts = bundle_counts if np.isneginf(counted_at_s) else None
        self._appeal: NDArray[np.float32] | None = None
        self._num_seen = 0

    def sharing_plays(self, bundle_counts: NDArray[np.float32]) -> PopularNow:
        """For another bundle with the same items in the same rows: the two share all plays that either of them adds."""
        other = copy(self)
        other._num_rows, other._appeal = len(bundle_counts), None
        if self._undated_counts is not None:
            other._undated_counts = bundle_counts
        return other

    def add(self, plays: Iterable[tuple[int, float]]) -> None:
        """Counts plays: item row and event time in seconds of each. Row 0, an unknown item, is not counted."""
        add = self.window.add
        for row, at_s in plays:
            add(row, at_s)

    def appeal(self) -> NDArray[np.float32]:
        """log(1 + plays) of the bundle's items. Shape: f32[V]."""
        if self._appeal is None or self.window.num_added - self._num_seen >= _REFRESH_PLAYS:
            counts = self.window.counts(self._num_rows)
            if self._undated_counts is not None:
                counts += self._undated_counts
            self._appeal = np.log1p(counts, dtype=np.float32)
            self._num_seen = self.window.num_added
        return self._appeal


class PopularTable:
    """What a table of counts says: plays of each row, decayed by a week. ``week`` f64[V]; row 0 is no item.

    References read it as they read a :class:`~intentrec_core.baselines.popularity.PopularWindow`. Cost: a sort of V numbers.
    """

    def __init__(self, week: NDArray[np.float64]) -> None:
        self.week = week
        self._counts = np.rint(week * _PARTS).astype(np.int64)
        self._order = np.argsort(-self._counts, kind="stable")
        self._total = int(self._counts.sum())
        for values in (self._counts, self._order):
            values.setflags(write=False)

    def __len__(self) -> int:
        """All plays, in the unit of the counts."""
        return self._total

    def counts_and_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Thousandths of plays by row, and the rows by their plays, most first. Shapes: i64[V], i64[V]."""
        return self._counts, self._order


def ranked(
    appeal: NDArray[np.float32],
    label_probs: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.float32]],
    k: int,
    *,
    num_rows: int | None = None,
    excluded: Sequence[NDArray[np.int64]],
    allowed: Sequence[NDArray[np.bool_] | None],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` best items by their appeal, log(1 + plays), + Σ over heads of the probability of the item's labels, of several
    their sum.

    Each head changes the popularity of an item by a factor of at most e; without intents, the list is plain popularity.
    ``num_rows``: of all items (default: those with an appeal); those without an appeal have no plays.

    Shapes: appeal f32[at most V]; label_probs f32[N, L] and labels f32[V, L] (above 0: the item has it) for each head, excluded
    i64[any] and allowed bool[V] for each row -> rows i64[N, k] (-1 padded), scores f32[N, k] (-inf padded).
    """
    scores = np.zeros((len(excluded), num_rows or len(appeal)), dtype=np.float32)
    scores[:, : len(appeal)] = appeal
    for probs, shares in zip(label_probs, labels, strict=True):
        scores += probs @ (shares > 0).astype(np.float32).T
    for i, (hidden, mask) in enumerate(zip(excluded, allowed, strict=True)):
        scores[i, hidden] = -np.inf
        if mask is not None:
            scores[i, ~mask] = -np.inf
    scores[:, 0] = -np.inf
    width = min(k, scores.shape[1])
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :width]
    found = np.full((len(scores), k), PAD_ROW, dtype=np.int64)
    values = np.full((len(scores), k), -np.inf, dtype=np.float32)
    values[:, :width] = np.take_along_axis(scores, rows, axis=1)
    found[:, :width] = np.where(np.isneginf(values[:, :width]), PAD_ROW, rows)
    return found, values
