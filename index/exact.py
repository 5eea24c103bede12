"""Exact search: every item is scored. Other indexes are measured against it, and fall back to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.base import (
    PAD_ROW,
    Mask,
    Rows,
    Vectors,
    check_search,
    checked_vectors,
    longest_vector,
    picked,
    rounding_margin,
)
from index.candidates import best, floors_of_best, places_above
from index.grouped_vectors import MAX_QUERIES, GroupedVectors

#: Scores held at once, 16 MB: 40 queries over 100,000 items, or a whole batch over a small catalogue.
_BLOCK_SCORES = 4_000_000
#: Below this share of allowed rows, copying out their vectors costs less than scoring all rows.
_GATHER_RATIO = 0.1
_GROUP_SIZE = 64
#: Up to this many rows, a second copy is kept in a layout for few queries at a time. Larger catalogues use a pruned
#: index.
_GROUPED_UP_TO = 100_001


class ExactIndex:
    """Scores all items with one matrix product, then scores the best ones again in a fixed order.

    Cost: time O(B · V · D); memory 16 MB in addition to the vectors, and a second copy of the vectors up to 100,000
    rows.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = checked_vectors(vectors)
        self.vectors.setflags(write=False)
        self._grouped = GroupedVectors(self.vectors) if len(self.vectors) <= _GROUPED_UP_TO else None
        self._longest = longest_vector(self.vectors)

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0."""
        return len(self.vectors) - 1

    @property
    def dimension(self) -> int:
        """D: the number of dimensions."""
        return int(self.vectors.shape[1])

    def vectors_of(self, rows: Rows) -> Vectors:
        """See :meth:`index.base.ItemIndex.vectors_of`."""
        return self.vectors[rows]

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """See :meth:`index.base.ItemIndex.search`. ``included`` has no effect here, because all items are scored."""
        queries = check_search(self, queries, k, excluded, allowed, included)
        rows = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for mask, members in self._groups(len(queries), allowed):
            subset = None if mask is None else np.flatnonzero(mask)
            pool = self.vectors if subset is None else self.vectors[subset]
            step = max(1, _BLOCK_SCORES // max(1, len(pool)))
            few = self._grouped if subset is None and len(members) <= MAX_QUERIES else None
            buffer = np.empty((0 if few else min(step, len(members)), len(pool)), dtype=np.float32)
            for start in range(0, len(members), step):
                block = members[start : start + step]
                batch = queries[block]
                rough = few.scores(batch) if few else np.matmul(batch, pool.T, out=buffer[: len(block)])
                hidden, masks = picked(excluded, block), picked(allowed, block)
                rows[block], scores[block] = self._best_of(rough, batch, k, subset, hidden, masks)
        return rows, scores

    def _groups(
        self, num_queries: int, allowed: Sequence[Mask | None] | None
    ) -> list[tuple[Mask | None, NDArray[np.intp]]]:
        """Queries to score together: those that share a restrictive mask over its rows, all others over all rows."""
        everywhere: list[int] = []
        restricted: dict[int, tuple[Mask, list[int]]] = {}
        narrow: dict[int, bool] = {}
        for query in range(num_queries):
            mask = None if allowed is None else allowed[query]
            if mask is not None and id(mask) not in narrow:
                narrow[id(mask)] = int(np.count_nonzero(mask)) < _GATHER_RATIO * len(mask)
            if mask is None or not narrow[id(mask)]:
                everywhere.append(query)
            else:
                restricted.setdefault(id(mask), (mask, []))[1].append(query)
        groups: list[tuple[Mask | None, NDArray[np.intp]]] = [(None, np.array(everywhere, dtype=np.intp))]
        groups += [(mask, np.array(members, dtype=np.intp)) for mask, members in restricted.values()]
        return groups

    def _best_of(
        self,
        rough: Vectors,
        batch: Vectors,
        k: int,
        subset: Rows | None,
        excluded: Sequence[Rows] | None,
        allowed: Sequence[Mask | None] | None,
    ) -> tuple[Rows, Vectors]:
        """The best k of each query from its approximate scores, which are overwritten. Shapes: f32[B, V and more],
        f32[B, D].
        """
        for query, scores in enumerate(rough):
            _hide(scores, subset, allowed[query] if allowed else None, excluded[query] if excluded else None)
        # Twice the margin: the k-th best score may be too high by one margin, and a better item's score too low by one.
        floors = floors_of_best(rough, k, _GROUP_SIZE) - 2 * rounding_margin(batch, self._longest)
        places, ends = places_above(rough, floors)
        return best(self.vectors, batch, places if subset is None else subset[places], ends, k)


def _hide(rough: Vectors, subset: Rows | None, mask: Mask | None, hidden: Rows | None) -> None:
    """Sets the scores of items that may not be shown to -inf. Shapes: f32[P], i64[P] their rows (None: all rows)."""
    if subset is None:
        rough[0] = -np.inf
        if mask is not None:
            np.putmask(rough[: len(mask)], ~mask, -np.inf)
        if hidden is not None:
            rough[hidden] = -np.inf
    else:
        rough[subset == 0] = -np.inf
        if hidden is not None:
            rough[np.isin(subset, hidden)] = -np.inf
