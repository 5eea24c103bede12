"""Reads Parquet files that others wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from intentrec_core.errors import DataError


def read_table(path: Path) -> pa.Table:
    """All columns of a file.

    Raises: DataError when a name is that of several columns; OSError and pa.ArrowException when the file cannot be read.
    """
    name, num = next(iter(Counter(pq.read_schema(path).names).most_common(1)), ("", 0))
    if num > 1:
        raise DataError(f"column {name} occurs {num} times: keep one")
    return pq.read_table(path)
