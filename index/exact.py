"""Exact search: every item is scored. The truth other indexes are measured by, and what they fall back to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.base import (
    PAD_ROW,
    Mask,
    Rows,
    Vectors,
    best,
    check_search,
    checked_vectors,
    exact_scores,
    longest_vector,
    rounding_margin,
)
from index.candidates import floors_of_best, padded, places_above

#: Scores held at once, 16 MB: 40 queries over 100,000 items, or a whole batch over a small catalogue.
_BLOCK_SCORES = 4_000_000
#: Below this share of allowed rows, copying their vectors out costs less than scoring all rows.
_GATHER_RATIO = 0.1
_GROUP_SIZE = 64
#: Candidates of one query scored exactly at once: without a bound, 64 queries over 100,000 items that tie take 2 GB.
_MAX_TIED = 1024


class ExactIndex:
    """All items scored by one matrix product, the best ones scored again in a fixed order.

    Cost: time O(B · V · D), memory 16 MB beside the vectors.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = checked_vectors(vectors)
        self.vectors.setflags(write=False)
        self._longest = longest_vector(self.vectors)

    @property
    def num_items(self) -> int:
        """Items held, row 0 not counted."""
        return len(self.vectors) - 1

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """See :meth:`index.base.ItemIndex.search`; ``included`` changes nothing here, all items are scored."""
        queries = check_search(self, queries, k, excluded, allowed, included)
        rows = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for mask, members in self._groups(len(queries), allowed):
            subset = None if mask is None else np.flatnonzero(mask)
            pool = self.vectors if subset is None else self.vectors[subset]
            step = max(1, _BLOCK_SCORES // max(1, len(pool)))
            rough = np.empty((min(step, len(members)), len(pool)), dtype=np.float32)
            for start in range(0, len(members), step):
                block = members[start : start + step]
                rows[block], scores[block] = self._search_block(
                    rough[: len(block)], queries, k, block, pool, subset, excluded, allowed
                )
        return rows, scores

    def _groups(
        self, num_queries: int, allowed: Sequence[Mask | None] | None
    ) -> list[tuple[Mask | None, NDArray[np.intp]]]:
        """Queries to be scored together: those with one restrictive mask over its rows, all others over all rows."""
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

    def _search_block(
        self,
        rough: Vectors,
        queries: Vectors,
        k: int,
        block: NDArray[np.intp],
        pool: Vectors,
        subset: Rows | None,
        excluded: Sequence[Rows] | None,
        allowed: Sequence[Mask | None] | None,
    ) -> tuple[Rows, Vectors]:
        asked = queries[block]
        np.matmul(asked, pool.T, out=rough)
        for i, query in enumerate(block.tolist()):
            mask = None if allowed is None else allowed[query]
            hidden = None if excluded is None else excluded[query]
            _hide(rough[i], subset, mask, hidden)
        # Twice: the k-th best may be that much too high here, and a better one that much too low.
        floors = floors_of_best(rough, k, _GROUP_SIZE) - 2 * rounding_margin(asked, self._longest)
        candidates = [places if subset is None else subset[places] for places in places_above(rough, floors)]
        for i, found in enumerate(candidates):
            if len(found) > max(k, _MAX_TIED):
                candidates[i] = self._thinned(asked[i : i + 1], k, found)
        rows = padded(candidates)
        return best(rows, exact_scores(self.vectors, asked, rows), k)

    def _thinned(self, query: Vectors, k: int, tied: Rows) -> Rows:
        """The best k of a great many candidates, scored some at a time: copies of one vector may fill a catalogue."""
        kept = tied[:0]
        for start in range(0, len(tied), _MAX_TIED):
            chunk = np.concatenate([kept, tied[start : start + _MAX_TIED]])[None]
            kept = best(chunk, exact_scores(self.vectors, query, chunk), k)[0][0]
        return kept[kept > 0]


def _hide(rough: Vectors, subset: Rows | None, mask: Mask | None, hidden: Rows | None) -> None:
    """Overwrites the scores of what may not be shown with -inf. Shapes: f32[P], i64[P] which rows they are of (None: all)."""
    if subset is None:
        rough[0] = -np.inf
        if mask is not None:
            np.putmask(rough, ~mask, -np.inf)
        if hidden is not None:
            rough[hidden] = -np.inf
    else:
        rough[subset == 0] = -np.inf
        if hidden is not None:
            rough[np.isin(subset, hidden)] = -np.inf
