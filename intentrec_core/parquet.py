"""Reads Parquet files that others wrote, and says what their types can hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from intentrec_core.errors import DataError

#: By the bits of a number with a point.
_END_OF_WHOLE = {16: 2**11, 32: 2**24, 64: 2**53}


def read_table(path: Path) -> pa.Table:
    """All columns of a file.

    Raises: DataError when a name is that of several columns; OSError and pa.ArrowException when the file cannot be read.
    """
    name, num = next(iter(Counter(pq.read_schema(path).names).most_common(1)), ("", 0))
    if num > 1:
        raise DataError(f"column {name} occurs {num} times: keep one")
    return pq.read_table(path)


def end_of_whole(kind: pa.DataType) -> int:
    """From here on, a type of numbers with a point (or a dictionary of them) does not hold every whole number: two ids could
    be one number. Of any other type: that of 64 bits, which JSON has.
    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _END_OF_WHOLE[kind.bit_width if pa.types.is_floating(kind) else 64]
