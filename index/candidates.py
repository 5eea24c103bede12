"""What kinds of index share: the best of many rough scores, and what approximate kinds do with filters.

Shapes: B queries, P rough scores of each, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW, Mask, Rows, Vectors

#: Below this share of allowed rows, looking through the many that are not allowed costs more than scoring the allowed ones.
MIN_ALLOWED_RATIO = 0.25

#: Finite: a score of -inf, which is what a filter leaves of an item, never reaches it.
_LOWEST = np.finfo(np.float32).min


def floors_of_best(rough: Vectors, wanted: int, group_size: int) -> Vectors:
    """A score that the ``wanted`` best of each query reach, and few others; the lowest number where there are not so many.

    The n-th largest maximum of disjoint groups is at most the n-th largest score: one pass of maxima instead of a partition.
    Neighbours fall into different groups. Shapes: f32[B, P] -> f32[B].
    """
    num_scores, group_size = rough.shape[1], max(1, group_size)
    num_groups = num_scores // group_size
    if num_groups <= wanted:
        if num_scores <= wanted:
            return np.full(len(rough), _LOWEST, dtype=np.float32)
        maxima, num_groups = rough, num_scores
    else:
        maxima = rough[:, : num_groups * group_size].reshape(len(rough), group_size, num_groups).max(axis=1)
    return np.maximum(np.partition(maxima, num_groups - wanted, axis=1)[:, num_groups - wanted], _LOWEST)


def places_above(rough: Vectors, floors: Vectors) -> list[Rows]:
    """The places, in order, of each query's scores that reach its floor. Shapes: f32[B, P], f32[B] -> i64[any] a query."""
    # One flat array of places: finding them by row and column takes ten times as long.
    flat = np.flatnonzero(rough >= np.maximum(floors, _LOWEST)[:, None])
    bounds = np.searchsorted(flat, rough.shape[1] * np.arange(len(rough) + 1))
    place = flat % max(1, rough.shape[1])
    return [place[begin:end] for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]


def padded(found: list[Rows]) -> Rows:
    """One array of ragged rows. Shape: i64[B, C], C at least 1."""
    rows = np.full((len(found), max(1, max((len(own) for own in found), default=0))), PAD_ROW, dtype=np.int64)
    for query, own in enumerate(found):
        rows[query, : len(own)] = own
    return rows


def allowed_ratios(num_items: int, num_queries: int, allowed: Sequence[Mask | None] | None) -> NDArray[np.float64]:
    """The share of items each query may be shown. Shape: f64[B]."""
    if allowed is None:
        return np.ones(num_queries)
    known: dict[int, float] = {
        id(mask): np.count_nonzero(mask) / max(1, num_items) for mask in allowed if mask is not None
    }
    return np.array([1.0 if mask is None else min(1.0, known[id(mask)]) for mask in allowed])


def with_included(
    candidates: Rows,
    included: Sequence[Rows],
    excluded: Sequence[Rows] | None,
    allowed: Sequence[Mask | None] | None,
) -> Rows:
    """The candidates and, behind them, the rows of ``included`` that are not among them and may be shown.

    Shapes: i64[B, C] -> i64[B, C and more], padded.
    """
    added: list[Rows] = []
    for query, rows in enumerate(included):
        new = np.setdiff1d(rows, candidates[query])
        new = new[new > 0]
        mask = None if allowed is None else allowed[query]
        if mask is not None:
            new = new[mask[new]]
        added.append(new if excluded is None else np.setdiff1d(new, excluded[query]))
    return np.concatenate([candidates, padded(added)], axis=1)
