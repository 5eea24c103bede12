"""An index whose items have columns that move: what is popular now is a part of their score, beside vectors that stay.

    score(i) = ⟨q, v_i⟩ + ⟨g, x_i⟩

    queries [q, g] ─┬─ q ─ index of the vectors v ─ its best ──────────────┐
                    └─ the best rows of each column: the same for all ─────┴─ scored exactly ─▶ best k

An item that is among the best has a good inner product or a high column. Which items have the highest columns is looked up once
for a table of columns, not for a query. A filter that allows few items is searched exactly: all that it allows are scored.

Shapes: V rows, row 0 included, B queries, D dimensions of the vectors, C columns, H rows with the highest columns, F candidates
of the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW, ItemIndex, Mask, Rows, Vectors, check_search, picked
from index.candidates import MIN_ALLOWED_RATIO, allowed_ratios
from index.exact import ExactIndex
from intentrec_core.kernels.dense import compiled, f32

#: Rows taken from each end of each column.
PER_COLUMN = 256
#: F, where not more items are asked for.
DEPTH = 64
#: Rows whose vectors are copied at once for an exact search: some 30 MB.
_ROWS_AT_ONCE = 65_536
_NO_ROWS = np.zeros(0, dtype=np.int64)


def highest_rows(columns: Vectors, rows: Rows | None = None, per_column: int = PER_COLUMN) -> Rows:
    """The rows with the highest values of each column, and with the lowest of the last: there the newest items are. Rows whose
    columns are all 0 are left out. ``rows``: which to look at, all by default.

    Shapes: f32[V, C] -> i64[H], ascending.
    """
    known = np.arange(1, len(columns)) if rows is None else rows
    known = known[columns[known].any(axis=1)]
    best: list[Rows] = []
    for values in (*columns[known].T, -columns[known, -1]):
        if len(values) > per_column:
            best.append(known[np.argpartition(-values, per_column)[:per_column]])
        else:
            best.append(known)
    return np.unique(np.concatenate(best))


def compile_search() -> None:
    """Compiles what a search calls: seconds where numba's cache is empty."""
    index = CountedIndex(ExactIndex(np.ones((2, 1), dtype=np.float32)), np.ones((2, 1), dtype=np.float32), _NO_ROWS)
    index.search(np.ones((1, 2), dtype=np.float32), 1)


class CountedIndex:
    """``base`` with ``columns`` f32[V, C]: an index of dimension D + C. ``highest`` i64[H]: rows that are always candidates.

    Approximate where ``base`` is, and where an item is neither among the base's best nor among the highest of a column.
    Cost: O((H + F) · (D + C)) for each query, in addition to the base's search for F items.
    Raises: ValueError for columns that do not fit.
    """

    def __init__(self, base: ItemIndex, columns: Vectors, highest: Rows) -> None:
        if columns.ndim != 2 or len(columns) != base.num_items + 1:
            raise ValueError(f"columns have shape {columns.shape}; allowed: [{base.num_items + 1}, C]")
        self._base, self._columns, self._highest = base, columns, highest
        self._highest_vectors = self.vectors_of(highest)

    @property
    def base(self) -> ItemIndex:
        """The index of the vectors."""
        return self._base

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0."""
        return self._base.num_items

    @property
    def dimension(self) -> int:
        """D + C."""
        return self._base.dimension + self._columns.shape[1]

    @property
    def exact(self) -> ItemIndex:
        """An index of the same items that scores all of them."""
        return _Exact(self)

    def vectors_of(self, rows: Rows) -> Vectors:
        """See :meth:`index.base.ItemIndex.vectors_of`."""
        return np.concatenate([self._base.vectors_of(rows), self._columns[rows]], axis=1)

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
        few = allowed_ratios(self.num_items, len(queries), allowed) < MIN_ALLOWED_RATIO
        rows, scores = _nothing(len(queries), k)
        for members, search in ((np.flatnonzero(~few), self._best_candidates), (np.flatnonzero(few), self.all_of)):
            if len(members):
                filters = picked(excluded, members), picked(allowed, members), picked(included, members)
                rows[members], scores[members] = search(queries[members], k, *filters)
        return rows, scores

    def _best_candidates(
        self,
        queries: Vectors,
        k: int,
        excluded: Sequence[Rows] | None,
        allowed: Sequence[Mask | None] | None,
        included: Sequence[Rows] | None,
    ) -> tuple[Rows, Vectors]:
        split = self._base.dimension
        candidates, _ = self._base.search(
            queries[:, :split], max(k, DEPTH), excluded=excluded, allowed=allowed, included=included
        )
        found = _nothing(len(queries), k)
        for mask, members in _by_mask(len(queries), allowed):
            own = candidates[members]
            vectors = self.vectors_of(np.maximum(own, 0).reshape(-1))
            hidden = picked(excluded, members)
            self._keep_best(found, members, queries, own, vectors, self._highest, self._highest_vectors, hidden, mask)
        return found

    def all_of(
        self,
        queries: Vectors,
        k: int,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """The best k of all items that are allowed, each scored. ``included`` has no effect."""
        found = _nothing(len(queries), k)
        for mask, members in _by_mask(len(queries), allowed):
            rows = np.arange(1, len(self._columns)) if mask is None else np.flatnonzero(mask)
            none = np.zeros((len(members), 0), dtype=np.int64)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = rows[start : start + _ROWS_AT_ONCE]
                vectors, hidden = self.vectors_of(part), picked(excluded, members)
                self._keep_best(found, members, queries, none, vectors[:0], part, vectors, hidden, mask)
        return found

    def _keep_best(
        self,
        found: tuple[Rows, Vectors],
        members: NDArray[np.intp],
        queries: Vectors,
        candidates: Rows,
        vectors: Vectors,
        shared: Rows,
        shared_vectors: Vectors,
        excluded: Sequence[Rows] | None,
        mask: Mask | None,
    ) -> None:
        """Keeps the best of each query's own candidates, and of those that all queries share. Shapes: candidates i64[B, F]."""
        hidden = [_NO_ROWS] * len(members) if excluded is None else [rows.astype(np.int64) for rows in excluded]
        ends = np.cumsum([len(rows) for rows in hidden])
        marks = np.zeros(len(self._columns), dtype=np.bool_) if mask is None else ~mask
        marks[0] = True
        rows, scores = found[0][members], found[1][members]
        _keep_best(
            queries[members],
            candidates,
            vectors,
            shared,
            shared_vectors,
            np.concatenate(hidden) if hidden else _NO_ROWS,
            ends,
            marks,
            rows,
            scores,
        )
        found[0][members], found[1][members] = rows, scores


class _Exact:
    """All items of a counted index, scored one by one."""

    def __init__(self, index: CountedIndex) -> None:
        self._index = index
        self.num_items, self.dimension, self.vectors_of = index.num_items, index.dimension, index.vectors_of

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
        queries = check_search(self._index, queries, k, excluded, allowed, included)
        return self._index.all_of(queries, k, excluded, allowed)


def _nothing(num_queries: int, k: int) -> tuple[Rows, Vectors]:
    rows = np.full((num_queries, k), PAD_ROW, dtype=np.int64)
    return rows, np.full((num_queries, k), -np.inf, dtype=np.float32)


def _by_mask(num_queries: int, allowed: Sequence[Mask | None] | None) -> list[tuple[Mask | None, NDArray[np.intp]]]:
    """Queries by the mask that they share."""
    if allowed is None:
        return [(None, np.arange(num_queries))]
    groups: dict[int, tuple[Mask | None, list[int]]] = {}
    for query, mask in enumerate(allowed):
        groups.setdefault(id(mask), (mask, []))[1].append(query)
    return [(mask, np.array(members, dtype=np.intp)) for mask, members in groups.values()]


@compiled
def _keep_best(
    queries: Any,
    candidates: Any,
    vectors: Any,
    shared: Any,
    shared_vectors: Any,
    hidden: Any,
    hidden_ends: Any,
    marks: Any,
    found: Any,
    scores: Any,
) -> None:
    """A mark says that a row is hidden, or was scored for this query."""
    own, num_shared = candidates.shape[1], shared.shape[0]
    for b in range(queries.shape[0]):
        hidden_from = hidden_ends[b - 1] if b else 0
        num = 0
        while num < found.shape[1] and found[b, num] > 0:
            num += 1
        # Marks that this query sets are cleared after it: -1 for a row that was marked before.
        cleared = np.empty(hidden_ends[b] - hidden_from + own, dtype=np.int64)
        num_cleared = 0
        for place in range(hidden_from, hidden_ends[b]):
            if not marks[hidden[place]]:
                marks[hidden[place]] = True
                cleared[num_cleared] = hidden[place]
                num_cleared += 1
        for place in range(own + num_shared):
            row = candidates[b, place] if place < own else shared[place - own]
            if row <= 0 or marks[row]:
                continue
            if place < own:
                marks[row] = True
                cleared[num_cleared] = row
                num_cleared += 1
                num = _insert(vectors[b * own + place], row, queries[b], num, found[b], scores[b])
            else:
                num = _insert(shared_vectors[place - own], row, queries[b], num, found[b], scores[b])
        for place in range(num_cleared):
            marks[cleared[place]] = False


@compiled
def _insert(vector: Any, row: Any, query: Any, num: Any, found: Any, scores: Any) -> Any:
    """Scores a row, and keeps it among the ``num`` best so far, by score and then by row; returns their number."""
    score = f32(0)
    for d in range(query.shape[0]):
        score += vector[d] * query[d]
    k, place = found.shape[0], num
    while place and (score > scores[place - 1] or (score == scores[place - 1] and row < found[place - 1])):
        place -= 1
    if place == k:
        return num
    num = min(num + 1, k)
    for later in range(num - 1, place, -1):
        found[later], scores[later] = found[later - 1], scores[later - 1]
    found[place], scores[place] = row, score
    return num
