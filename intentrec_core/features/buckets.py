"""Codes of numbers for bucketed fields: code 0 is missing, code 1 + i is the i-th bucket."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Release ages are bucketed in days. Every other number is bucketed in the unit of its attribute.
DAY_S = 86_400.0


def bucket_codes(
    numbers: NDArray[np.floating], edges: Sequence[float], *, missing: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Codes of ``numbers`` for rising ``edges``; 0 for NaN and where ``missing``. Shapes: f[N], bool[N] -> i64[N]."""
    values = numbers.astype(np.float64)
    absent = np.isnan(values) if missing is None else np.isnan(values) | missing
    return np.where(absent, 0, 1 + np.digitize(values, edges)).astype(np.int64)
