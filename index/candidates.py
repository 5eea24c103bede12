"""What all approximate kinds do with filters: when to give up and search exactly, and which rows must be scored anyhow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW, Mask, Rows

#: Below this share of allowed rows, looking through the many that are not allowed costs more than scoring the allowed ones.
MIN_ALLOWED_RATIO = 0.25


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
    extra = np.full((len(candidates), max((len(rows) for rows in added), default=0)), PAD_ROW, dtype=np.int64)
    for query, rows in enumerate(added):
        extra[query, : len(rows)] = rows
    return np.concatenate([candidates, extra], axis=1)
