"""Times as texts and numbers: what is read, to the millisecond, and which unit is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.times import (
    EARLIEST_MS,
    END_MS,
    LOWEST_EARLIEST_MS,
    fitting_unit,
    iso_time,
    outside,
    parse_time,
)

NOW_MS = 1_772_396_100_000
MS_OF = {
    "seconds (s)": lambda number: number * 1000,
    "milliseconds (ms)": lambda number: number,
    "microseconds (µs)": lambda number: number // 10**3,
    "nanoseconds (ns)": lambda number: number // 10**6,
}


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("2026-03-01T20:15:00", NOW_MS),
        ("2026-03-01T21:15:00.000+01:00", NOW_MS),
        ("2026-03-01 20:15:00+0000", NOW_MS),
        ("2026-W09-7T20:15z", NOW_MS),
        ("2026-03-01T20:14:59.9999", NOW_MS - 1),  # rounded down: never later than it was
        ("1970-01-01", 0),
        ("1772396100000", NOW_MS),
        ("+1772396100000", NOW_MS),
        ("-1000", -1000),
        ("2026030112345", 2_026_030_112_345),  # and not 2026-03-01 at 23:45, with a 1 between date and time
        ("2026-03-01T24:00:00Z", 1_772_409_600_000),
        ("2026-03-01T24:00", 1_772_409_600_000),
        ("20260301T24", 1_772_409_600_000),
        ("2026-03-01T24:00:00.000+01:00", 1_772_406_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2016-12-31T23:59:60.5Z", 1_483_228_800_500),
        ("20170101T005960,25+0100", 1_483_228_800_250),
    ],
)
def test_what_is_read(text: str, ts_ms: int) -> None:
    assert parse_time(text) == ts_ms


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("yesterday", "'yesterday' cannot be read; allowed: ISO 8601"),
        ("", "cannot be read"),
        ("2026-060", "calendar or week date"),
        ("2026-13-01T00:00:00Z", "cannot be read"),
        ("2026-03-01T24:00:01", "cannot be read"),
        ("2026-03-01T24:00:00.0001", "cannot be read"),
        ("2026-03-01T25:00", "cannot be read"),
        ("0001-01-01T00:00-23:00" + "0" * 40, "cannot be read"),
        ("2026-03-01T20:15:61", "cannot be read"),
        ("2016-12-31T22:59:60Z", "has a second 60; allowed: in a leap second only, which is 23:59:60 in UTC"),
        ("2017-01-01T23:59:60+01:00", "has a second 60"),
        ("1772396100.5", r"in digits; it would fit in seconds \(s\)"),
        ("1.7723961e15", r"it would fit in microseconds \(µs\)"),
        ("١٧٧٢٣٩٦١٠٠٠٠٠", "cannot be read"),
        ("9" * 5000, r"^'9{23}… \(5002 characters\) cannot be read; allowed: ISO 8601"),
        ("-" + "9" * 5000, r"\(5003 characters\) cannot be read; allowed: ISO 8601"),
    ],
)
def test_what_is_refused_says_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_time(text)


@given(ts_ms=st.integers(0, END_MS - 1))
def test_times_of_outputs_are_exact_to_the_millisecond(ts_ms: int) -> None:
    assert parse_time(iso_time(ts_ms)) == ts_ms
    assert len(iso_time(ts_ms)) == 24


MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 30), timezones=st.just(UTC))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moment=MOMENTS, offset=OFFSETS, separator=st.sampled_from("T t_"), lower=st.booleans())
def test_one_moment_is_one_number_however_it_is_written(
    moment: datetime, offset: timezone, separator: str, lower: bool
) -> None:
    ts_ms = int(moment.timestamp()) * 1000 + moment.microsecond // 1000
    texts = [moment.isoformat(separator), moment.astimezone(offset).isoformat(separator), str(ts_ms)]
    texts.append(moment.isoformat(separator).replace("+00:00", "z" if lower else "Z"))
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    assert [parse_time(text) for text in texts] == [ts_ms] * 4
    end_of_day = f"{midnight - timedelta(days=1):%Y-%m-%d}{separator}24:00{'z' if lower else 'Z'}"
    assert parse_time(end_of_day) == int(midnight.timestamp()) * 1000


@given(data=st.data(), earliest_ms=st.integers(LOWEST_EARLIEST_MS, END_MS - 1000))
def test_a_time_fits_in_its_own_unit_and_in_no_other_one(data: st.DataObject, earliest_ms: int) -> None:
    ts_ms = data.draw(st.integers(earliest_ms, END_MS - 1))
    numbers = {"milliseconds (ms)": ts_ms, "microseconds (µs)": ts_ms * 10**3, "nanoseconds (ns)": ts_ms * 10**6}
    numbers["seconds (s)"] = -(-earliest_ms // 1000) + (ts_ms - earliest_ms) // 1100
    assert {unit: fitting_unit(number, earliest_ms) for unit, number in numbers.items()} == {
        unit: unit for unit in numbers
    }


@given(number=st.integers(-(10**30), 10**30) | st.floats(allow_nan=True, allow_infinity=True))
def test_a_unit_is_named_for_nothing_else(number: float) -> None:
    unit = fitting_unit(number, EARLIEST_MS)
    fits = [name for name, to_ms in MS_OF.items() if EARLIEST_MS <= to_ms(number) < END_MS]
    assert ([unit] if unit else []) == fits


def test_numbers_beyond_all_floats_have_a_sentence_too() -> None:
    for number in (10**400, 10**5000, -(10**400)):
        assert "allowed: 1990-01-01 up to 2100-01-01" in outside("ts", number, number, EARLIEST_MS)
