"""An index with further items beside it: the vectors that were added after the index was built are scored exactly and merged.

    queries ─┬─ index of rows 1 to V - 1 ───────── its best k ─┐
             └─ added rows V to V + S - 1, exactly ─ best k ───┴─ by score, then by row ─▶ best k

An index of a bundle never changes. Items that appear while the bundle serves are added here, and are part of the next index.

Shapes: V rows of the index, row 0 included; S added rows; B queries, D dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from index.base import PAD_ROW, ItemIndex, Mask, Rows, Vectors, check_search
from index.exact import ExactIndex


class ExtendedIndex:
    """``base`` and the items of ``added`` f32[S, D], as rows from V on: one index, with the promises of ``base``.

    Where ``base`` is exact, so is this.
    Cost: O(B · S · D) in addition to the search of ``base``.
    Raises: ValueError for vectors that do not fit.
    """

    def __init__(self, base: ItemIndex, added: Vectors) -> None:
        if added.ndim != 2 or added.shape[1] != base.dimension:
            raise ValueError(f"added vectors have shape {added.shape}; allowed: [S, {base.dimension}]")
        self._base = base
        self._added = ExactIndex(np.concatenate([np.zeros((1, base.dimension), dtype=np.float32), added]))
        self._num_base = base.num_items + 1

    @property
    def base(self) -> ItemIndex:
        """The index that the items were added to."""
        return self._base

    def over(self, base: ItemIndex) -> ExtendedIndex:
        """The same added items beside another index of the same rows."""
        other = copy.copy(self)
        other._base = base
        return other

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0: V - 1 + S."""
        return self._base.num_items + self._added.num_items

    @property
    def dimension(self) -> int:
        """D: the number of dimensions."""
        return self._base.dimension

    def vectors_of(self, rows: Rows) -> Vectors:
        """See :meth:`index.base.ItemIndex.vectors_of`."""
        found = np.empty((len(rows), self.dimension), dtype=np.float32)
        of_base = rows < self._num_base
        found[of_base] = self._base.vectors_of(rows[of_base])
        found[~of_base] = self._added.vectors_of(rows[~of_base] - (self._num_base - 1))
        return found

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
        base = self._base.search(
            queries,
            k,
            excluded=each(excluded, self._of_base),
            allowed=each_mask(allowed, lambda mask: mask[: self._num_base]),
            included=each(included, self._of_base),
        )
        added = self._added.search(
            queries, k, excluded=each(excluded, self._of_added), allowed=each_mask(allowed, self._mask_of_added)
        )
        shifted = np.where(added[0] == PAD_ROW, PAD_ROW, added[0] + self._num_base - 1)
        rows = np.concatenate([base[0], shifted], axis=1)
        scores = np.concatenate([base[1], added[1]], axis=1)
        # Stable: of equal scores the rows of the base stay in front, and each half is in row order already.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)

    def _of_base(self, rows: Rows) -> Rows:
        return rows[rows < self._num_base]

    def _of_added(self, rows: Rows) -> Rows:
        return rows[rows >= self._num_base] - (self._num_base - 1)

    def _mask_of_added(self, mask: Mask) -> Mask:
        own = mask[self._num_base - 1 :].copy()
        own[0] = False
        return own


def each(lists: Sequence[Rows] | None, take: Callable[[Rows], Rows]) -> list[Rows] | None:
    """What ``take`` makes of each query's rows."""
    return None if lists is None else [take(rows) for rows in lists]


def each_mask(masks: Sequence[Mask | None] | None, take: Callable[[Mask], Mask]) -> list[Mask | None] | None:
    """What ``take`` makes of each query's mask. One object for one mask: an index searches together the queries that share it."""
    if masks is None:
        return None
    taken = {id(mask): take(mask) for mask in masks if mask is not None}
    return [None if mask is None else taken[id(mask)] for mask in masks]
