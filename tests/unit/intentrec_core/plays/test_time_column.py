"""Columns of times of every type: converted by what the type says, or refused with row and unit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.errors import DataError
from intentrec_core.plays.time_column import times_ms
from intentrec_core.times import EARLIEST_MS, END_MS

NOW_MS = 1_772_396_100_000
UNITS = {"s": 10**-3, "ms": 1, "us": 10**3, "ns": 10**6}
NAMED = {"s": "seconds (s)", "us": "microseconds (µs)", "ns": "nanoseconds (ns)"}


def read(values: list[Any], kind: pa.DataType | None = None) -> list[int]:
    return times_ms("ts_ms", pa.chunked_array([pa.array(values, kind)]), EARLIEST_MS, END_MS).to_pylist()


def scaled(ts_ms: int, unit: str) -> int:
    return ts_ms // 1000 if unit == "s" else ts_ms * int(UNITS[unit])


MOMENTS = st.lists(
    st.integers(EARLIEST_MS // 1000, END_MS // 1000 - 1).map(lambda at_s: at_s * 1000), min_size=1, max_size=5
)


@given(
    times=MOMENTS, unit=st.sampled_from(sorted(UNITS)), zone=st.sampled_from([None, "UTC", "+05:30", "Europe/Berlin"])
)
def test_a_timestamp_is_converted_by_its_type(times: list[int], unit: str, zone: str | None) -> None:
    assert read([scaled(ts_ms, unit) for ts_ms in times], pa.timestamp(unit, zone)) == times


NUMBERS = [pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(38, 3)]
TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]


def column_of(numbers: list[int], kind: pa.DataType) -> pa.ChunkedArray:
    texts = [str(number) for number in numbers]
    column = pa.array(texts, pa.string()).cast(kind) if kind in TEXTS else pa.array(numbers).cast(kind, safe=False)
    return pa.chunked_array([column])


@given(times=MOMENTS, kind=st.sampled_from(NUMBERS + TEXTS))
def test_whole_milliseconds_are_read_from_every_type_of_numbers_and_texts(times: list[int], kind: pa.DataType) -> None:
    assert times_ms("ts_ms", column_of(times, kind), EARLIEST_MS, END_MS).to_pylist() == times


@given(times=MOMENTS, unit=st.sampled_from(sorted(NAMED)), kind=st.sampled_from(NUMBERS + TEXTS))
def test_a_number_in_another_unit_is_refused_with_that_unit(times: list[int], unit: str, kind: pa.DataType) -> None:
    with pytest.raises(DataError) as raised:
        times_ms("ts_ms", column_of([scaled(ts_ms, unit) for ts_ms in times], kind), EARLIEST_MS, END_MS)
    assert "ts_ms: row 0" in str(raised.value)
    assert str(raised.value).endswith(f"; it would fit in {NAMED[unit]}")


@given(times=MOMENTS, unit=st.sampled_from(["s", *UNITS]), kind=st.sampled_from([np.float16, np.float32]))
def test_numbers_too_short_for_milliseconds_are_refused_whatever_they_are(
    times: list[int], unit: str, kind: Any
) -> None:
    with np.errstate(over="ignore"):
        numbers = np.array([scaled(ts_ms, unit) for ts_ms in times]).astype(kind)
    with pytest.raises(
        DataError, match=r"ts_ms is \w+, which has too few digits for milliseconds: .*; allowed: a timest"
    ):
        read(pa.array(numbers).to_pylist(), pa.from_numpy_dtype(kind))


@given(times=MOMENTS, unit=st.sampled_from(["s", "ms", "us", "ns"]), typed=st.sampled_from(["s", "ms", "us", "ns"]))
def test_a_timestamp_made_from_numbers_of_another_unit_is_never_taken_for_a_time(
    times: list[int], unit: str, typed: str
) -> None:
    """As pandas makes one of seconds with its default unit, which is nanoseconds."""
    numbers = [scaled(ts_ms, unit) for ts_ms in times]
    try:
        found = read(numbers, pa.timestamp(typed))
    except DataError:
        assert unit != typed
    else:
        assert (unit, found) == (typed, times)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([NOW_MS, NOW_MS + 1], pa.int64()),
        ([float(NOW_MS), NOW_MS + 1.0], pa.float64()),
        ([Decimal(NOW_MS), Decimal(NOW_MS + 1)], pa.decimal128(20, 2)),
        (["2026-03-01T20:15:00Z", "2026-03-01t20:15:00.001999z"], pa.large_string()),
        ([f"{NOW_MS}.0", "2026-03-01 20:15:00.001"], pa.string_view()),
        ([str(NOW_MS).encode(), b"2026-03-01 20:15:00.001"], pa.binary()),
        ([NOW_MS * 1000 + 999, NOW_MS * 1000 + 1999], pa.timestamp("us")),
    ],
    ids=str,
)
def test_what_says_the_same_is_read_the_same(values: list[Any], kind: pa.DataType) -> None:
    assert read(values, kind) == [NOW_MS, NOW_MS + 1]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_its_midnight_in_utc(kind: pa.DataType) -> None:
    assert read([datetime(2026, 3, 1, tzinfo=UTC).date()], kind) == [1_772_323_200_000]


@pytest.mark.parametrize(
    ("values", "kind", "complaint"),
    [
        ([NOW_MS, 5, 6], pa.int64(), "row 1 and 1 more: the time is 5, in milliseconds 1970-01-01T00:00:00.005Z"),
        ([NOW_MS, NOW_MS / 1000], pa.float64(), r"row 1 is 1772396100.0; .*|row 1: the time is 1772396100.0"),
        ([NOW_MS / 1000 + 0.5], pa.float64(), r"row 0 is 1772396100.5; allowed: whole .* would fit in seconds \(s\)"),
        ([float("nan")], pa.float64(), "row 0 is nan; allowed: whole milliseconds"),
        ([float("inf")], pa.float64(), "row 0 is inf; allowed"),
        (["2026-03-01", "soon"], pa.string(), "row 1: 'soon' cannot be read; allowed: ISO 8601"),
        (["9" * 60], pa.string(), "after year 9999"),
        (["9" * 5000], pa.string(), r"row 0: .* \(5002 characters\) cannot be read; allowed: ISO 8601"),
        (["20260301"], pa.string(), r"is '20260301', .*; it would fit as YYYYMMDD: write 2026-03-01$"),
        ([20260301], pa.int32(), "it would fit as YYYYMMDD: write 2026-03-01$"),
        ([20261301], pa.int32(), r"1990-01-01 up to \S+$"),
        ([Decimal(5)], pa.decimal128(9, 2), r"the time is 5\.00, in milliseconds 1970"),
        (
            [NOW_MS, 2**64 - 1, 5],
            pa.uint64(),
            "row 1 and 1 more: the time is 18446744073709551615, in .* after year 9999",
        ),
        (
            [NOW_MS // 1000, NOW_MS * 10**6],
            pa.timestamp("s"),
            r"row 1: .*year 9999.*; it would fit in nanoseconds \(ns\)",
        ),
        ([NOW_MS * 10**3], pa.timestamp("s"), r"row 0: .*is 1772396100000000; it would fit in microseconds \(µs\)"),
        ([5, -(2**62)], pa.timestamp("s"), "row 0 and 1 more: the time is '1970-01-01T00:00:05"),
        ([-(2**62)], pa.timestamp("s"), "row 0: the time is 'a time before year 1'"),
        (
            [NOW_MS + 0.5],
            pa.float64(),
            r"row 0 is 1772396100000.5; allowed: whole milliseconds since 1970, or a \w+ type$",
        ),
        ([b"\xff"], pa.binary(), "row 0: b'.xff' is not UTF-8"),
        ([NOW_MS // 1000], pa.timestamp("ns"), r"the number in it is 1772396100; it would fit in seconds \(s\)"),
        ([True], pa.bool_(), "is bool; allowed: a timestamp, a date, a text"),
        ([5], pa.duration("ms"), r"is duration\[ms\]; allowed"),
    ],
)
def test_what_is_no_time_names_its_row_and_what_is_allowed(
    values: list[Any], kind: pa.DataType, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        read(values, kind)
