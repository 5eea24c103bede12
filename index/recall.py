"""Recall of an approximate index against exact search: when an index is built, and by a worker for a few of its queries."""

from __future__ import annotations

from index.base import ItemIndex, Rows, Vectors
from index.counted import CountedIndex
from index.extended import ExtendedIndex


def recall_at_k(index: ItemIndex, exact: ItemIndex, queries: Vectors, k: int) -> float:
    """The share of the exact best k that ``index`` returns, over all queries; 1.0 if there is nothing to find.

    Shapes: queries f32[N, D].
    """
    rows, scores = index.search(queries, k)
    wanted, found = count_found(rows, scores, *exact.search(queries, k))
    return found / wanted if wanted else 1.0


def count_found(rows: Rows, scores: Vectors, true_rows: Rows, true_scores: Vectors) -> tuple[int, int]:
    """How many items the exact results hold, and how many of them were found.

    An item also counts as found if another item with the same score was returned in its place.

    Shapes: i64[N, k], f32[N, k] each.
    """
    wanted = found = 0
    for got_rows, got_scores, true_row, true_score in zip(rows, scores, true_rows, true_scores, strict=True):
        real = true_row > 0
        wanted += int(real.sum())
        if real.any():
            worst = true_score[real][-1]
            num_tied = int(((got_rows > 0) & (got_scores >= worst)).sum())
            found += min(int(real.sum()), num_tied)
    return wanted, found


def exact_search_of(index: ItemIndex) -> ItemIndex | None:
    """The exact index over the same items; None where ``index`` is exact itself, or has none."""
    if isinstance(index, CountedIndex):
        return index.exact
    if isinstance(index, ExtendedIndex):
        of_base = exact_search_of(index.base)
        return None if of_base is None else index.over(of_base)
    exact: ItemIndex | None = getattr(index, "exact", None)
    return None if exact is None or getattr(index, "is_exact", False) else exact
