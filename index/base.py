"""The interface of item indexes, and checks that all of them share.

    queries B × D ──▶ search ──▶ rows B × k, best first, and their scores

Rows are those of the vocabulary: row 0 means "no item" and is never returned. An index knows vectors and rows. It does
not know item names, members or domains.

Shapes: B queries, D dimensions, V rows (row 0 included), k results, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

#: Fills the result when fewer than k items may be shown; the score is -inf.
PAD_ROW = -1

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Vectors = NDArray[np.float32]
Picked = TypeVar("Picked")


class ItemIndex(Protocol):
    """Finds the items with the largest inner product.

    *Invariants*: results never contain row 0, and contain an item at most once; items with equal scores are in row
    order; if fewer than k items are returned, no other item may be shown. Safe to search from several threads.
    """

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0: V - 1."""

    @property
    def dimension(self) -> int:
        """D: the number of dimensions."""

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """The best k items for every query.

        ``excluded``: rows that are not returned for a query. ``allowed``: only rows marked in the mask are returned
        (None: all rows); queries that share one mask object are searched together. ``included``: rows that are always
        scored exactly, even if an approximate search would miss them; both filters apply to them too.

        Shapes: queries f32[B, D], excluded and included i64[any] per query, allowed bool[V] per query -> rows i64[B, k]
        (-1 padded), scores f32[B, k] (-inf padded).
        Raises: ValueError when a shape, a row or a number is not as described here.
        """

    def vectors_of(self, rows: Rows) -> Vectors:
        """The vectors of some items, as a search scores them. Shapes: i64[n], 1 to V - 1 -> f32[n, D]."""


def checked_vectors(vectors: Vectors) -> Vectors:
    """Item vectors fit for an index: contiguous float32, with row 0 set to zeros (it is masked whenever vectors are
    scored).

    Raises: ValueError when they are not f32[V >= 1, D >= 1], or an item's vector is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] < 1:
        raise ValueError(f"vectors have shape {vectors.shape}; allowed: [V, D] with row 0 for no item")
    kept = np.array(vectors, dtype=np.float32, order="C")
    kept[0] = 0.0
    bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
    if len(bad):
        raise ValueError(f"vector of row {bad[0]} is not finite")
    return kept


def check_search(
    index: ItemIndex,
    queries: Vectors,
    k: int,
    excluded: Sequence[Rows] | None,
    allowed: Sequence[Mask | None] | None,
    included: Sequence[Rows] | None,
) -> Vectors:
    """The queries as contiguous float32, if all arguments of a search are as :meth:`ItemIndex.search` describes.

    Raises: ValueError otherwise.
    """
    if queries.ndim != 2 or queries.shape[1] != index.dimension:
        raise ValueError(f"queries have shape {queries.shape}; allowed: [B, {index.dimension}]")
    if k < 1:
        raise ValueError(f"k is {k}; allowed: 1 and more")
    kept = np.ascontiguousarray(queries, dtype=np.float32)
    if not np.isfinite(kept).all():
        raise ValueError("a query is not finite")
    num_rows = index.num_items + 1
    for name, lists in (("excluded", excluded), ("included", included)):
        if lists is None:
            continue
        if len(lists) != len(kept):
            raise ValueError(f"{len(lists)} lists of {name} rows for {len(kept)} queries")
        flat = np.concatenate(lists) if len(lists) else np.zeros(0, dtype=np.int64)
        if len(flat) and (flat.dtype.kind not in "iu" or flat.min() < 0 or flat.max() >= num_rows):
            raise ValueError(f"{name} rows must be integers from 0 to {num_rows - 1}")
    if allowed is not None:
        if len(allowed) != len(kept):
            raise ValueError(f"{len(allowed)} allowed masks for {len(kept)} queries")
        if any(mask is not None and (mask.shape != (num_rows,) or mask.dtype != np.bool_) for mask in allowed):
            raise ValueError(f"an allowed mask is not bool[{num_rows}]")
    return kept


def rounding_margin(queries: Vectors, longest: float) -> Vectors:
    """The largest difference between two float32 evaluations of one inner product: D · eps · |q| · |v|.

    Shapes: f32[B, D] -> f32[B].
    """
    eps = float(np.finfo(np.float32).eps)
    lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
    margins: Vectors = (queries.shape[1] * eps * longest * lengths).astype(np.float32)
    return margins


def picked(per_query: Sequence[Picked] | None, queries: NDArray[np.intp]) -> list[Picked] | None:
    """The entries of selected queries, or None if there are no entries at all."""
    return None if per_query is None else [per_query[query] for query in queries.tolist()]


def longest_vector(vectors: Vectors) -> float:
    """The largest Euclidean length of a row."""
    return float(np.sqrt(np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64).max()))
