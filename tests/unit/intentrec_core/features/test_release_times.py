"""Releases of a catalogue: read in seconds and ISO 8601, refused in any other unit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.domain.spec import Rule
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.release_times import check_release_times, release_s
from intentrec_core.features.vocabulary import ItemTable, Vocabulary

VIDEO = load_domain("video")
(KEY,) = [field.key for field in VIDEO.fields if field.rule is Rule.TIME_SINCE_RELEASE]
RELEASED = datetime(2020, 1, 1, tzinfo=UTC)
RELEASED_S = int(RELEASED.timestamp())


def catalogue(*values: Any) -> Catalogue:
    return Catalogue(Item(f"m{number}", "?", {KEY: value}) for number, value in enumerate(values))


@pytest.mark.parametrize(
    "value",
    [
        RELEASED_S,
        float(RELEASED_S),
        str(RELEASED_S),
        "2020-01-01",
        "20200101",
        "2020-01-01T00:00:00z",
        "2019-12-31T24:00",
        "2020-01-01T01:00:00+01:00",
    ],
)
def test_a_release_is_the_same_however_it_is_written(value: Any) -> None:
    items = catalogue(value)
    check_release_times(items, VIDEO)
    table = ItemTable(VIDEO, Vocabulary.build(["m0"]), items)
    np.testing.assert_array_equal(table.moment(KEY), [np.nan, RELEASED_S])


@given(at_s=st.integers(-5_364_662_400, 4_102_444_799).filter(lambda at_s: abs(at_s) >= 400 * 86_400))
def test_seconds_pass_and_other_units_are_named(at_s: int) -> None:
    check_release_times(catalogue(at_s), VIDEO)
    if at_s < 0:
        return
    for factor, unit in ((10**3, "milliseconds (ms)"), (10**6, "microseconds (µs)"), (10**9, "nanoseconds (ns)")):
        for number in (at_s * factor, str(at_s * factor)):
            with pytest.raises(DataError) as raised:
                check_release_times(catalogue("2020-01-01", number), VIDEO)
            assert f"item 'm1': {KEY} is {number!r}, which would fit in {unit}" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (2019, "as a year: write a date such as 2019-01-01"),
        ("2019", "as a year"),
        (18_262, "in days"),
        (-1, "released is -1; releases that are no times: 1 of 1; allowed"),
        ("1700", "released is '1700'; releases"),
        (20_200_101, "as YYYYMMDD"),
        (["1577836800000"], "in milliseconds"),
        ("1970-01-01T00:00:01.577836", "as a number of another unit than the column's type says"),
        ("1970-01-19T06:17:16.800", "as a number of another unit"),
        ("8706-01-16T00:00:00", "8706-01-16T00:00:00, which would fit as a number of another unit"),
        ("9999-12-31", "released is 9999-12-31; releases that are no times: 1 of 1; allowed"),
        ("1799-12-31T23:59:59", "released is 1799-12-31T23:59:59; releases"),
        ("2100-01-01", "released is 2100-01-01; releases"),
        (float("inf"), "released is inf; releases that are no times: 1 of 1; allowed: a date"),
        (10**400, "released is '1000000000"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_numbers_that_are_no_seconds_are_refused_with_what_they_may_be(value: Any, hint: str) -> None:
    with pytest.raises(DataError) as raised:
        check_release_times(catalogue(value), VIDEO)
    assert hint in str(raised.value)
    assert "allowed: a date (ISO 8601), or seconds since 1970" in str(raised.value)


@pytest.mark.parametrize("value", [-1, 1995, "1700", RELEASED_S * 1000])
def test_a_few_bad_releases_cost_these_items_their_release(value: Any) -> None:
    checked = check_release_times(catalogue(*["2020-01-01"] * 19, value), VIDEO)
    assert checked.items[:19] == catalogue(*["2020-01-01"] * 19).items
    assert checked.items[19] == Item("m19", "?")
    (line,) = [left_out.line() for left_out in checked.left_out]
    assert line.startswith(f"item 'm19', attribute released: {value!r}")
    assert line.endswith("left out; allowed: a date (ISO 8601), or seconds since 1970 from 1800 up to 2100")


def test_bad_releases_are_counted_against_the_releases_there_are() -> None:
    assert len(check_release_times(catalogue(*["2020-01-01"] * 38, -1, -1), VIDEO).left_out) == 1
    with pytest.raises(DataError, match="no times: 2 of 39; allowed"):
        check_release_times(catalogue(*["2020-01-01"] * 37, *[None] * 60, -1, -1), VIDEO)


def test_releases_that_were_left_out_when_the_file_was_read_count_as_bad_ones(tmp_path: Path) -> None:
    """Of a column in another unit than its type says, none is left to be looked at."""
    for num_bad, num in ((1, 20), (2, 21), (20, 20)):
        numbers = [RELEASED_S * 10**6] * num_bad + [RELEASED_S] * (num - num_bad)
        ids = [f"m{number}" for number in range(num)]
        items = Catalogue.from_table(pa.table({"item_id": ids, KEY: pa.array(numbers, pa.timestamp("s"))}))
        if num_bad == 1:
            checked = check_release_times(items, VIDEO)
            assert (checked.items, checked.left_out) == (items.items, items.left_out)
            continue
        with pytest.raises(DataError) as raised:
            check_release_times(items, VIDEO)
        assert "item 'm0': released is not readable (timestamp[s] outside the years 1 to 9999; it would" in str(
            raised.value
        )
        assert f"fit in microseconds (µs)); releases that are no times: {num_bad} of {num}; allowed" in str(
            raised.value
        )


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("typed", ["s", "ms", "us", "ns"])
@given(at_s=st.integers(400 * 86_400, 4_102_444_799).filter(lambda at_s: at_s % 900))
def test_of_every_unit_in_every_type_a_release_is_right_or_refused(unit: str, typed: str, at_s: int) -> None:
    factors = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    column = pa.array([at_s * factors[unit]], pa.timestamp(typed))
    items = Catalogue.from_table(pa.table({"item_id": ["m"], KEY: column}))
    if unit == typed:
        assert release_s(check_release_times(items, VIDEO).items[0].attributes[KEY]) == at_s
        return
    with pytest.raises(DataError, match=r"would fit (in|as a number of another unit)"):
        check_release_times(items, VIDEO)


@pytest.mark.parametrize("value", [None, "soon", "", True, float("nan"), [], ["a", "b"], 0, -86_400, "1970-01-01"])
def test_missing_releases_and_old_ones_are_no_mistake(value: Any) -> None:
    check_release_times(catalogue(value), VIDEO)


def test_only_what_the_domain_reads_as_a_release_is_checked() -> None:
    check_release_times(Catalogue([Item("m", "?", {"year": 2019, "size": 10**15})]), VIDEO)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_timestamps_of_a_parquet_are_read_by_their_type(tmp_path: Path, unit: str, zone: str | None) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    odd = 1 if unit == "ns" else 0  # finer than Python's datetime is
    column = pa.array([RELEASED_S * factor + odd, None], pa.timestamp(unit, zone))
    pq.write_table(pa.table({"item_id": ["m0", "m1"], KEY: column}), tmp_path / "items.parquet")
    items = Catalogue.load(tmp_path / "items.parquet")
    check_release_times(items, VIDEO)
    assert release_s(items.items[0].attributes[KEY]) == RELEASED_S
    assert KEY not in items.items[1].attributes
