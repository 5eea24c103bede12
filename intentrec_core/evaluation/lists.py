"""What lists are like besides being right: coverage of the universe, diversity within a list, and bias to popular items.

Shapes: N lists of k items (row 0: no item), V item rows, D attributes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.features.labels import ItemLabels


def coverage(listed: NDArray[np.int64], universe: NDArray[np.bool_]) -> float:
    """Share of the universe that stands in at least one list. Shapes: i64[N, k], bool[V]."""
    return float(len(np.unique(listed[listed > 0])) / max(1, int(universe.sum())))


def diversity(listed: NDArray[np.int64], attributes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each list, the mean over its pairs of items of 1 − cosine of their attributes; NaN with fewer than two items.

    An item without attributes is as far from every other as can be. Shapes: i64[N, k], f32[V, D] -> f64[N].
    """
    length = np.linalg.norm(attributes, axis=1, keepdims=True)
    unit = (attributes / np.maximum(length, 1e-12)).astype(np.float64)
    unit[0] = 0.0
    of_list = unit[listed]
    num = (listed > 0).sum(axis=1)
    # Σ over pairs of ⟨a, b⟩ is half of |Σ a|² − Σ |a|².
    together = (of_list.sum(axis=1) ** 2).sum(axis=1) - (of_list**2).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(num > 1, 1.0 - together / (num * (num - 1)), np.nan)


def popularity_of(listed: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean number of plays, in what was learned, of each list's items; NaN for an empty list.

    Shapes: i64[N, k], f64[V] -> f64[N].
    """
    is_item = listed > 0
    num = is_item.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(num > 0, np.where(is_item, counts[listed], 0.0).sum(axis=1) / num, np.nan)


def attribute_table(items: ItemLabels) -> NDArray[np.float32]:
    """Catalogue attributes as indicators: the labels of every field that depends on the item alone. Shape: f32[V, D]."""
    one_hot = (np.eye(1 + int(codes.max(initial=0)), dtype=np.float32)[codes][:, 1:] for codes in items.codes.T)
    columns = [*items.multi.values(), *one_hot]
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(items.codes), 0), dtype=np.float32)
