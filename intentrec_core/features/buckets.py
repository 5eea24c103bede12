"""Numbers to the codes of a bucketed field: code 0 is missing, code 1 + i is the i-th bucket."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: A release age is counted in days; every other bucketed number is in its attribute's own unit.
DAY_S = 86_400.0


def bucket_codes(
    numbers: NDArray[np.floating], edges: Sequence[float], *, missing: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Codes of numbers between ``edges``, which rise; 0 for NaN and where ``missing``. Shapes: f[N], bool[N] -> i64[N]."""
    values = numbers.astype(np.float64)
    absent = np.isnan(values) if missing is None else np.isnan(values) | missing
    return np.where(absent, 0, 1 + np.digitize(values, edges)).astype(np.int64)
