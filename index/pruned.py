"""Approximate search of a very large catalogue: a matrix product over the items and directions that matter, then exact scores.

    queries B × D ─▶ leading directions B × R ─▶ scores of the kept items B × P ─▶ filters ─▶ best C ─▶ exact scores ─▶ best k
                                                          └─ restrictive filter, too few, or k too large: exact search

What is kept, and how much, a :class:`index.pruning.Plan` says. It may miss an item that should have been among the best, but it
never returns fewer than there are, nor one that may not be shown.

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

#: Rough scores held at once, 16 MB: what is written is read back from the processor's cache; 4 and 64 MB take longer.
_BLOCK_SCORES = 4_000_000
#: Groups of which the maxima are taken, for each candidate: the floor they give then lets few others pass.
_GROUPS_PER_CANDIDATE = 8


class PrunedIndex:
    """The items of a plan searched, with an exact index over all items behind it.

    Cost: time O(B · P · R); beside the vectors, 4 · P · R bytes and 16 MB a search.
    Raises: ValueError for vectors that are not fit, or a plan of other ones.
    """

    def __init__(self, vectors: Vectors, plan: Plan) -> None:
        self.exact = ExactIndex(vectors)
        self.plan = plan
        rows, basis = plan.rows, plan.basis
        if basis.ndim != 2 or basis.shape[0] != self.dimension or not np.isfinite(basis).all():
            raise ValueError(f"a plan has directions {basis.shape}, the vectors {self.dimension} dimensions")
        if not len(rows) or rows.min() < 1 or rows.max() > self.num_items or len(np.unique(rows)) != len(rows):
            raise ValueError(f"a plan keeps rows that are not some of 1 to {self.num_items}, each once")
        self._kept = np.ascontiguousarray(self.exact.vectors[rows] @ basis)
        self._place = np.full(
            self.num_items + 1, len(rows), dtype=np.int64
        )  # one place more, for all that are not kept
        self._place[rows] = np.arange(len(rows))

    @property
    def num_items(self) -> int:
        """Items held, row 0 not counted."""
        return self.exact.num_items

    @property
    def dimension(self) -> int:
        """D."""
        return self.exact.dimension

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
        """Rows that may be shown and score highest in the plan's directions, at least C of them where there are; padded.

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
