"""Recall of an approximate index, measured against exact search. It is printed when an index is built."""

from __future__ import annotations

from index.base import ItemIndex, Vectors


def recall_at_k(index: ItemIndex, exact: ItemIndex, queries: Vectors, k: int) -> float:
    """The share of the exact best k that ``index`` returns, over all queries; 1.0 if there is nothing to find.

    An item also counts as found if the index returned another item with the same score in its place.

    Shapes: queries f32[N, D].
    """
    rows, scores = index.search(queries, k)
    true_rows, true_scores = exact.search(queries, k)
    wanted = found = 0
    for got_rows, got_scores, true_row, true_score in zip(rows, scores, true_rows, true_scores, strict=True):
        real = true_row > 0
        wanted += int(real.sum())
        if real.any():
            worst = true_score[real][-1]
            num_tied = int(((got_rows > 0) & (got_scores >= worst)).sum())
            found += min(int(real.sum()), num_tied)
    return found / wanted if wanted else 1.0
