"""Times as numbers and as texts: how they are read, and in which unit a number would fit that is no time as it stands.

A number alone does not say its unit. But seconds, milliseconds, microseconds and nanoseconds of the same moment differ by a
factor of 1,000, and any two moments between 1971 and 2100 differ by less than a factor of 140. So a number that fits in one
unit fits in no other one.

Units: ``_ms`` is milliseconds since 1970-01-01 in UTC. This module reads no clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

#: 1990-01-01, the default of a domain's ``earliest``. Milliseconds before it are seconds, as a rule, or no time at all.
EARLIEST_MS = 631_152_000_000
#: 1971-01-01, the lowest ``earliest`` of a domain: from there on the units can be told apart (see above).
LOWEST_EARLIEST_MS = 31_536_000_000
#: 2100-01-01, excluded.
END_MS = 4_102_444_800_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY_MS = 86_400_000
_MILLISECONDS = "milliseconds (ms)"
#: By how much a number of each unit is multiplied, and then divided, to be milliseconds. Whole numbers stay exact.
_UNITS = {
    "seconds (s)": (1000, 1),
    _MILLISECONDS: (1, 1),
    "microseconds (µs)": (1, 1000),
    "nanoseconds (ns)": (1, 1_000_000),
}
#: The parts of ISO 8601 that are looked at where Python does not read a text as it stands.
_PARTS = re.compile(
    r"[0-9W-]{7,10}[^0-9](?P<hour>\d\d)(?P<rest>(:?\d\d(:?(?P<second>\d\d)([.,]\d+)?)?)?)(?P<offset>[Zz]|[+-].+)?",
    re.ASCII,
)
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0+)?")


def parse_time(text: str) -> int:
    """Milliseconds since 1970 of a text: ISO 8601 (UTC if it has no offset), or digits, which are milliseconds as they are, also
    with a point and zeros after it.

    Finer digits than milliseconds are cut off. 24:00 is midnight at the end of its day. A leap second, 23:59:60 in UTC, is
    the second after it, as in POSIX.

    Raises: ValueError with what is wrong with the text and what is allowed.
    """
    if text.isdigit() and text.isascii():
        return _digits(text)  # before ISO 8601: some of 13 digits would be a date, a separator and a clock time
    try:
        return _since_1970_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return _parse_rare(text)


def iso_time(ts_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, the format of times in outputs."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts_ms % 1000:03d}Z"


def fitting_unit(number: float, earliest_ms: int, end_ms: int = END_MS) -> str | None:
    """The unit in which ``number`` is a time from ``earliest_ms`` up to ``end_ms``, such as "seconds (s)"; None if there is
    none.
    """
    fits = (unit for unit, (by, over) in _UNITS.items() if earliest_ms <= number * by // over < end_ms)
    return next(fits, None)


def unit_hint(number: float, earliest_ms: int, end_ms: int = END_MS) -> str:
    """The end of a sentence about a number that is no time in milliseconds: the unit in which it would be one."""
    unit = fitting_unit(number, earliest_ms, end_ms)
    if unit == _MILLISECONDS and number != int(number):  # it is in milliseconds, and has a fraction of one
        return ""
    return f"; it would fit in {unit}" if unit else ""


def outside(name: str, shown: object, ts_ms: int, earliest_ms: int, end_ms: int = END_MS) -> str:
    """Why a time outside [``earliest_ms``, ``end_ms``) is refused. ``shown`` is the value as it was given."""
    written, hint = f"{name} is {_short(shown)}", ""
    if not isinstance(shown, str) or _WHOLE.fullmatch(shown):
        written += f", in milliseconds {_date(ts_ms)}"
        hint = unit_hint(ts_ms, earliest_ms, end_ms) or _day_hint(ts_ms)
    return f"{written}; allowed: {_date(earliest_ms)} up to {_date(end_ms)}{hint}"


def _day_hint(number: int) -> str:
    """The hint that a number is a day as YYYYMMDD."""
    try:
        day = datetime.strptime(str(number), "%Y%m%d") if 19_000_101 <= number < 21_000_101 else None
    except ValueError:
        return ""
    return f"; it would fit as YYYYMMDD: write {day:%Y-%m-%d}" if day else ""


def _short(shown: object) -> str:
    try:
        text = str(shown) if isinstance(shown, Decimal) else repr(shown)
    except ValueError:  # Python prints no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else f"{text[:24]}… ({len(text)} characters)"


def _date(ts_ms: int) -> str:
    """The day of a time; with the clock time where it is not midnight."""
    try:
        text = iso_time(ts_ms)
    except (ValueError, OverflowError, OSError):
        return "before year 1" if ts_ms < 0 else "after year 9999"
    return text.removesuffix("T00:00:00.000Z")


def _since_1970_ms(moment: datetime) -> int:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def _digits(text: str) -> int:
    try:
        return int(text.partition(".")[0])
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise ValueError(_unread(text)) from None


def _parse_rare(text: str) -> int:
    """A whole number with a sign or a point, or the ISO 8601 that Python does not read: 24:00, leap seconds, a lower-case z."""
    if _WHOLE.fullmatch(text):
        return _digits(text)
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError(_unread(text))
    characters, later_ms = list(text), 0

    def put(part: str, other: str) -> None:
        characters[slice(*parts.span(part))] = other

    if parts["offset"] == "z":
        put("offset", "Z")
    if parts["hour"] == "24" and not parts["rest"].strip(":.,0"):
        put("hour", "00")
        later_ms = _DAY_MS
    elif parts["second"] == "60":
        put("second", "59")
        later_ms = 1000
    try:
        ts_ms = _since_1970_ms(datetime.fromisoformat("".join(characters))) + later_ms
    except (ValueError, OverflowError):
        raise ValueError(_unread(text)) from None
    if later_ms == 1000 and ts_ms % _DAY_MS >= 1000:
        raise ValueError(f"{_short(text)} has a second 60; allowed: in a leap second only, which is 23:59:60 in UTC")
    return ts_ms


def _unread(text: str) -> str:
    try:
        hint = unit_hint(float(text), EARLIEST_MS)
    except ValueError:
        hint = ""
    return (
        f"{_short(text)} cannot be read; allowed: ISO 8601 with a calendar or week date, such as 2026-03-01T20:15:00Z, or "
        f"milliseconds since 1970 in digits{hint}"
    )
