"""The times of stored plays: a column of any type that says when something was, as whole milliseconds since 1970.

A number is milliseconds, as on the topic. A timestamp or a date says its unit by its type. A text is read as a ``ts`` on the
topic. Everything else, every time outside the limits, and numbers of 32 bits or less with a point, which are minutes apart, are
refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intentrec_core.errors import DataError
from intentrec_core.plays.text_columns import is_text, utf8
from intentrec_core.times import iso_time, outside, parse_time, unit_hint

_ALLOWED = "a timestamp, a date, a text in ISO 8601, or whole milliseconds since 1970"


def times_ms(name: str, column: pa.ChunkedArray, earliest_ms: int, end_ms: int) -> pa.ChunkedArray:
    """The column as i64 milliseconds since 1970, all in [``earliest_ms``, ``end_ms``). ``name`` is used in errors.

    A timestamp without a time zone is UTC, as ISO 8601 without an offset is. Finer digits than milliseconds are cut off.

    Raises: DataError with the first row (counted from 0) that is no such time, and the unit in which it would be one.
    """
    times = _as_milliseconds(name, column, earliest_ms, end_ms)
    values = times.to_numpy()
    wrong = np.flatnonzero((values < earliest_ms) | (values >= end_ms))
    if len(wrong):
        raise _refused(name, column, wrong.tolist(), int(values[wrong[0]]), earliest_ms, end_ms)
    return times


def _as_milliseconds(name: str, column: pa.ChunkedArray, earliest_ms: int, end_ms: int) -> pa.ChunkedArray:
    kind = column.type
    try:
        if pa.types.is_timestamp(kind):
            finer = kind.unit in ("us", "ns")
            return column.cast(pa.timestamp("ms", kind.tz), safe=not finer).cast(pa.int64())
        if pa.types.is_date(kind):
            return column.cast(pa.timestamp("ms")).cast(pa.int64())
        if pa.types.is_integer(kind):
            return column.cast(pa.int64())
    except pa.ArrowException as error:  # a whole number of 64 bits, or a timestamp in seconds
        is_typed = pa.types.is_timestamp(kind)
        numbers = (column.cast(pa.int64()) if is_typed else column).to_pylist()
        beyond_ms = [number * 1000 if is_typed else number for number in numbers]  # 64 bits do not hold all of them
        wrong = [row for row, ts_ms in enumerate(beyond_ms) if not earliest_ms <= ts_ms < end_ms]
        raise _refused(name, column, wrong, beyond_ms[wrong[0]], earliest_ms, end_ms) from error
    if is_text(kind):
        return _parsed(name, utf8(name, column))
    if pa.types.is_float64(kind) or pa.types.is_decimal(kind):
        return _whole(name, column, earliest_ms, end_ms)
    why = (
        ", which has too few digits for milliseconds: two minutes can be one number"
        if pa.types.is_floating(kind)
        else ""
    )
    raise DataError(f"{name} is {kind}{why}; allowed: {_ALLOWED}")


def _parsed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    times: list[int] = []
    for row, text in enumerate(column.to_pylist()):
        try:
            times.append(min(max(parse_time(text), -(2**63)), 2**63 - 1))
        except ValueError as error:
            raise DataError(f"{name}: row {row}: {error}") from error
    return pa.chunked_array([pa.array(times, pa.int64())])


def _whole(name: str, column: pa.ChunkedArray, earliest_ms: int, end_ms: int) -> pa.ChunkedArray:
    """Numbers with a point that are whole all the same, as a spreadsheet writes them."""
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    wrong = np.flatnonzero(~(np.abs(values) < 2.0**53) | (values != np.floor(values)))
    if len(wrong):
        row = int(wrong[0])
        value = float(values[row])
        hint = unit_hint(value, earliest_ms, end_ms) if math.isfinite(value) else ""
        raise DataError(
            f"{name}: row {row} is {value!r}; allowed: whole milliseconds since 1970, or a timestamp type{hint}"
        )
    return pa.chunked_array([pa.array(values.astype(np.int64))])


def _refused(
    name: str, column: pa.ChunkedArray, rows: Sequence[int], first_ms: int, earliest_ms: int, end_ms: int
) -> DataError:
    more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
    return DataError(f"{name}: row {rows[0]}{more}: {_outside(column, rows[0], first_ms, earliest_ms, end_ms)}")


def _outside(column: pa.ChunkedArray, row: int, ts_ms: int, earliest_ms: int, end_ms: int) -> str:
    kind, shown = column.type, _shown(column[row])
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return outside("the time", shown, ts_ms, earliest_ms, end_ms)
    try:
        written = iso_time(ts_ms)
    except (ValueError, OverflowError, OSError):
        written = "a time after year 9999" if ts_ms > 0 else "a time before year 1"
    number = column[row].value
    hint = unit_hint(number, earliest_ms, end_ms) if isinstance(number, int) else ""
    typed = f"; the number in it is {number}{hint}" if hint else ""
    return f"{outside('the time', written, ts_ms, earliest_ms, end_ms)} (its type is {kind}){typed}"


def _shown(value: pa.Scalar) -> Any:
    return None if pa.types.is_temporal(value.type) else value.as_py()
