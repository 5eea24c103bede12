"""Approximate search of a very large catalogue: a matrix product over the items and directions that matter, then exact
scores.

    queries B × D ─▶ leading directions B × R ─▶ scores of the kept items B × P ─▶ filters ─▶ best C ─▶ exact scores ─▶ best k
                                                          └─ restrictive filter, too few, or k too large: exact search

A :class:`index.pruning.Plan` says which items and directions are kept. The search may miss an item that belongs to the
best, but it returns k items whenever k may be shown, and never an item that may not be shown.

Shapes: as :mod:`index.pruning`; B queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.base import (
    PAD_ROW,
    Mask,
    Rows,
    Vectors,
    check_search,
    picked,
)
from index.candidates import (
    MIN_ALLOWED_RATIO,
    allowed_ratios,
    best,
    ends_of,
    floors_of_best,
    padded,
    places_above,
    with_included,
)
from index.exact import ExactIndex
from index.pruning import PLANNED_K, Plan

#: Approximate scores held at once, 16 MB, so that they are read back from the processor's cache; 4 and 64 MB take
#: longer.
_BLOCK_SCORES = 4_000_000
#: Number of groups per candidate whose maxima give the floor: with this many, few other items pass the floor.
_GROUPS_PER_CANDIDATE = 8


class PrunedIndex:
    """Searches the items of a plan, with an exact index over all items as the fallback.

    Cost: time O(B · P · R); memory 4 · P · R bytes in addition to the vectors, and 16 MB per search.
    Raises: ValueError for unsuitable vectors, or a plan that was made for others.
    """

    def __init__(self, vectors: Vectors, plan: Plan) -> None:
        self.exact = ExactIndex(vectors)
        self.plan = plan
        rows, basis = plan.rows, plan.basis
        if basis.ndim != 2 or basis.shape[0] != self.dimension or not np.isfinite(basis).all():
            raise ValueError(
                f"a plan has directions of shape {basis.shape}, but the vectors have {self.dimension} dimensions"
            )
        if not len(rows) or rows.min() < 1 or rows.max() > self.num_items or len(np.unique(rows)) != len(rows):
            raise ValueError(f"a plan must keep at least one of the rows 1 to {self.num_items}, each once")
        self._kept = np.ascontiguousarray(self.exact.vectors[rows] @ basis)
        self._place = np.full(
            self.num_items + 1, len(rows), dtype=np.int64
        )  # one extra place, for all rows that are not kept
        self._place[rows] = np.arange(len(rows))

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0."""
        return self.exact.num_items

    @property
    def dimension(self) -> int:
        """D: the number of dimensions."""
        return self.exact.dimension

    def vectors_of(self, rows: Rows) -> Vectors:
        """See :meth:`index.base.ItemIndex.vectors_of`."""
        return self.exact.vectors_of(rows)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """See :meth:`index.base.ItemIndex.search`."""
        queries = check_search(self, queries, k, excluded, allowed, included)
        rows = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        wide = np.flatnonzero(
            (allowed_ratios(self.num_items, len(queries), allowed) >= MIN_ALLOWED_RATIO) & (k <= PLANNED_K)
        )
        step = max(1, _BLOCK_SCORES // len(self._kept))
        rough = np.empty((min(step, len(wide)), len(self._kept)), dtype=np.float32)
        for low in range(0, len(wide), step):
            block = wide[low : low + step]
            hidden, masks, own = picked(excluded, block), picked(allowed, block), picked(included, block)
            candidates = self._candidates(rough[: len(block)], queries[block], hidden, masks)
            if own is not None:
                candidates = with_included(candidates, own, hidden, masks)
            rows[block], scores[block] = best(
                self.exact.vectors, queries[block], candidates.ravel(), ends_of(candidates), k
            )
        incomplete = np.flatnonzero(rows[:, -1] == PAD_ROW)
        if len(incomplete):
            rows[incomplete], scores[incomplete] = self.exact.search(
                queries[incomplete], k, excluded=picked(excluded, incomplete), allowed=picked(allowed, incomplete)
            )
        return rows, scores

    def _candidates(
        self,
        rough: Vectors,
        queries: Vectors,
        excluded: Sequence[Rows] | None,
        allowed: Sequence[Mask | None] | None,
    ) -> Rows:
        """Rows that may be shown and score highest in the plan's directions: at least C of them if there are so many;
        padded.

        Shapes: f32[B, P] to write scores into, f32[B, D] -> i64[B, any].
        """
        np.matmul(queries @ self.plan.basis, self._kept.T, out=rough)
        for query, hidden in enumerate(excluded or ()):
            places = self._place[hidden]
            rough[query, places[places < len(self._kept)]] = -np.inf
        known: dict[int, Mask] = {}
        for query, mask in enumerate(allowed or ()):
            if mask is not None:
                if id(mask) not in known:
                    known[id(mask)] = ~mask[self.plan.rows]
                np.putmask(rough[query], known[id(mask)], -np.inf)
        wanted = self.plan.num_candidates
        floors = floors_of_best(rough, wanted, len(self._kept) // (_GROUPS_PER_CANDIDATE * wanted))
        places, ends = places_above(rough, floors)
        return padded(np.split(self.plan.rows[places], ends[:-1]))
