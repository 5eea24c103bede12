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

import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW, ItemIndex, Mask, Rows, Vectors, check_search, picked
from index.candidates import MIN_ALLOWED_RATIO, allowed_ratios, best
from index.exact import ExactIndex
from index.extended import each, each_mask

#: Rows taken from each end of each column.
PER_COLUMN = 256
#: F, where not more items are asked for.
DEPTH = 32
#: Rows whose vectors are copied at once for an exact search: some 30 MB.
_ROWS_AT_ONCE = 65_536


def highest_rows(columns: Vectors, rows: Rows | None = None, per_column: int = PER_COLUMN) -> Rows:
    """The rows with the highest values of each column, and with the lowest of the last: there the newest items are. Rows whose
    columns are all 0 are left out. ``rows``: which to look at, all by default.

    Shapes: f32[V, C] -> i64[H], ascending.
    """
    known = np.arange(1, len(columns)) if rows is None else rows
    known = known[columns[known].any(axis=1)]
    found: list[Rows] = []
    for values in (*columns[known].T, -columns[known, -1]):
        if len(values) > per_column:
            found.append(known[np.argpartition(-values, per_column)[:per_column]])
        else:
            found.append(known)
    return np.unique(np.concatenate(found))


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
        self._among_highest = self._exact_of(highest)
        #: By row its place among the highest, from 1 on; 0 for any other.
        self._place = np.zeros(len(columns), dtype=np.int32)
        self._place[highest] = np.arange(1, len(highest) + 1)

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
        rows = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for members, search in ((np.flatnonzero(~few), self._best_candidates), (np.flatnonzero(few), self.all_of)):
            if len(members):
                filters = picked(excluded, members), picked(allowed, members), picked(included, members)
                rows[members], scores[members] = search(queries[members], k, *filters)
        return rows, scores

    def all_of(
        self,
        queries: Vectors,
        k: int,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """The best k of all items that are allowed, each scored. ``included`` has no effect."""
        rows = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for mask, members in _by_mask(len(queries), allowed):
            shown = np.arange(1, self.num_items + 1) if mask is None else np.flatnonzero(mask)
            shown = shown[shown > 0]
            own, hidden = queries[members], picked(excluded, members)
            found = rows[members], scores[members]
            for start in range(0, len(shown), _ROWS_AT_ONCE):
                part = shown[start : start + _ROWS_AT_ONCE]
                left_out = None if hidden is None else [_places(part, gone) for gone in hidden]
                places, part_scores = self._exact_of(part).search(own, k, excluded=left_out)
                found = _merged(found, (_named(part, places), part_scores), k)
            rows[members], scores[members] = found
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
        candidates.sort(axis=1)  # items with equal scores are in row order
        is_own = (candidates > 0) & (self._place[candidates] == 0)
        own = candidates[is_own]
        places, scores = best(
            self._with_row_0(own), queries, np.arange(1, len(own) + 1), np.cumsum(is_own.sum(axis=1)), k
        )
        highest = self._among_highest.search(
            queries,
            k,
            excluded=each(excluded, lambda rows: self._place[rows[self._place[rows] > 0]].astype(np.int64)),
            allowed=each_mask(allowed, lambda mask: np.concatenate([[False], mask[self._highest]])),
        )
        return _merged((_named(own, places), scores), (_named(self._highest, highest[0]), highest[1]), k)

    def _exact_of(self, rows: Rows) -> ExactIndex:
        """An exact index of some rows, which it knows by their places from 1 on."""
        return ExactIndex(self._with_row_0(rows))

    def _with_row_0(self, rows: Rows) -> Vectors:
        return np.concatenate([np.zeros((1, self.dimension), dtype=np.float32), self.vectors_of(rows)])


class _Exact:
    """All items of a counted index, scored one by one."""

    def __init__(self, index: CountedIndex) -> None:
        self._index = index

    @property
    def num_items(self) -> int:
        return self._index.num_items

    @property
    def dimension(self) -> int:
        return self._index.dimension

    def vectors_of(self, rows: Rows) -> Vectors:
        """See :meth:`index.base.ItemIndex.vectors_of`."""
        return self._index.vectors_of(rows)

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


def _by_mask(num_queries: int, allowed: Sequence[Mask | None] | None) -> list[tuple[Mask | None, NDArray[np.intp]]]:
    """Queries by the mask that they share."""
    if allowed is None:
        return [(None, np.arange(num_queries))]
    groups: dict[int, tuple[Mask | None, list[int]]] = {}
    for query, mask in enumerate(allowed):
        groups.setdefault(id(mask), (mask, []))[1].append(query)
    return [(mask, np.array(members, dtype=np.intp)) for mask, members in groups.values()]


def _places(rows: Rows, some: Rows) -> Rows:
    """The places, from 1 on, that some rows have among ``rows``, which ascend; of those that are not among them nothing."""
    at = np.searchsorted(rows, some)
    at = at[rows[np.minimum(at, len(rows) - 1)] == some]
    return at + 1


def _named(rows: Rows, places: Rows) -> Rows:
    """The rows at places from 1 on, padding as it is."""
    return np.where(places > 0, np.append(PAD_ROW, rows)[np.maximum(places, 0)], PAD_ROW)


def _merged(one: tuple[Rows, Vectors], other: tuple[Rows, Vectors], k: int) -> tuple[Rows, Vectors]:
    """The best k of two results with different rows: by score, then by row."""
    rows, scores = np.concatenate([one[0], other[0]], axis=1), np.concatenate([one[1], other[1]], axis=1)
    first = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, first, axis=1), np.take_along_axis(scores, first, axis=1)
