"""Release times of a catalogue, which the rule time_since_release reads: checked when a catalogue is read to train on, and when
an item changes while a bundle serves.

A number is seconds since 1970, and a text is ISO 8601. A number that is no release in seconds was meant in another unit, or is a
mistake. A few of them cost these items their release. More mean that the whole column is in another unit, and ages in such a unit
would all be alike: the catalogue is refused, with the unit that would fit. An item that changes costs its own release alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from intentrec_core.domain.spec import Domain, Rule
from intentrec_core.errors import DataError
from intentrec_core.features.attributes import PLAIN_NUMBER, is_basic_date, release_s
from intentrec_core.features.catalogue import Catalogue, LeftOut
from intentrec_core.times import END_MS, fitting_unit

#: Above this share of bad releases the whole column is in another unit.
MAX_BAD_RATIO = 0.05
_ALLOWED = "a date (ISO 8601), or seconds since 1970 from 1800 up to 2100"
#: 1800-01-01. Releases before 1970 are negative numbers.
FIRST_RELEASE_MS = -5_364_662_400_000
#: Hints name a unit only if it puts the release in 1971 or later: numbers around 0 would fit in every unit.
_EARLIEST_HINT_MS = 86_400_000 * 366
_DAY_S = 86_400
#: Smaller numbers are rather years that are mistaken than days.
_FIRST_DAYS = 2_100
#: Seconds that were taken for milliseconds end here, in 1970: so do those taken for anything finer.
_MISTAKEN_S = END_MS / 1e6
_QUARTER_HOUR_S = 900
_DAY_LENGTH = len("2026-03-01")
_OTHER_UNIT = ", which would fit as a number of another unit than the column's type says"


def check_release_times(catalogue: Catalogue, domain: Domain) -> Catalogue:
    """The catalogue without releases that are no times, which its ``left_out`` names. ``domain`` says what is a release.

    Raises: DataError when these are all releases, or more than 1 in 20, with the first item, the attribute, how many there are,
    what is allowed, and the unit that would fit. Releases that were left out when the catalogue was made count as such.
    """
    checked = without_bad_releases(catalogue, release_keys(domain))
    for key in release_keys(domain):
        bad = [found for found in checked.left_out if found.attribute == key]
        num_bad = sum(found.num for found in bad)
        num = num_bad + sum(item.attributes.get(key) is not None for item in checked)
        if bad and (num_bad == num or num_bad > MAX_BAD_RATIO * num):
            raise DataError(
                f"catalogue: {bad[0].first}: {key} is {bad[0].reason}; releases that are no times: {num_bad:,} of {num:,}; "
                f"allowed: {_ALLOWED}"
            )
    return checked


def release_keys(domain: Domain) -> list[str]:
    """The attributes that a domain reads as releases."""
    return sorted({field.key for field in domain.fields if field.rule is Rule.TIME_SINCE_RELEASE})


def without_bad_releases(catalogue: Catalogue, keys: Iterable[str]) -> Catalogue:
    """The catalogue without releases that are no times, however many there are. Its ``left_out`` names them."""
    for key in keys:
        problems = {item.item_id: problem for item in catalogue if (problem := release_problem(item.attributes, key))}
        if problems:
            first, problem = next(iter(problems.items()))
            left_out = LeftOut(key, problem, f"item {first!r}", len(problems), _ALLOWED)
            catalogue = catalogue.without(key, problems, [left_out])
    return catalogue


def release_problem(attributes: Mapping[str, Any], key: str) -> str | None:
    """What is wrong with a release, with the unit that would fit; None if nothing is, or if it is missing."""
    value = attributes.get(key)
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        if PLAIN_NUMBER.fullmatch(value) and not is_basic_date(value):
            return _number_problem(float(value), repr(value))
        return _moment_problem(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return _number_problem(value, repr(value))


def _number_problem(number: float, shown: str) -> str | None:
    shown = shown if len(shown) <= 40 else f"{shown[:24]}…"
    try:
        at_s = float(number)
    except OverflowError:
        return shown
    if 1800 <= at_s <= 2100 and at_s.is_integer():
        return f"{shown}, which would fit as a year: write a date such as {at_s:.0f}-01-01"
    if 0 < abs(at_s) < _DAY_S:  # seconds of one day in 1970, or days: 20,000 of them are 2024
        return f"{shown}, which would fit in days: write dates, or seconds" if at_s > _FIRST_DAYS else shown
    if is_basic_date(f"{at_s:.0f}"):
        return f"{shown}, which would fit as YYYYMMDD: write it as a text"
    if FIRST_RELEASE_MS <= 1000.0 * at_s < END_MS:
        return None
    unit = fitting_unit(at_s, _EARLIEST_HINT_MS)
    return f"{shown}, which would fit in {unit}: write dates, or seconds" if unit else shown


def _moment_problem(text: str) -> str | None:
    at_s = release_s(text)
    if at_s is None:
        return None
    # Milliseconds in a column of seconds are moments of the third millennium and later; a day alone is of no such column.
    if not FIRST_RELEASE_MS <= 1000.0 * at_s < END_MS:
        in_other_unit = len(text) > _DAY_LENGTH and fitting_unit(at_s, _EARLIEST_HINT_MS)
        return f"{text}{_OTHER_UNIT}" if in_other_unit else text
    # Seconds in a column of a finer timestamp type are odd moments of January and February 1970.
    return f"{text}{_OTHER_UNIT}" if 0 < at_s < _MISTAKEN_S and at_s % _QUARTER_HOUR_S else None
