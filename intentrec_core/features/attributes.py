"""Values of an item's attributes: what a catalogue keeps of them, and how a field or a filter reads them.

    value of a file ── plain ──▶ text, number, truth value, or a list of these ──▶ number, moment, truth, texts, label_code

What means the same is read the same, however it is spelled: a number written as a text or as a DECIMAL, a truth value
written as 0 or 1, a list of one value in place of the value. A value that means nothing is missing, never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from intentrec_core.domain.spec import spelled_code, value_text
from intentrec_core.times import parse_time

#: Larger numbers are missing: sums and differences of them would not be finite.
MAX_NUMBER = 1e300
#: What Parquet holds in a whole-number column.
_INT64_BITS = 63
#: Some 1,200 digits. Python refuses to print numbers of more than 4,300.
_MAX_BITS = 4_096
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
#: A number without an exponent: what a release that is a number looks like.
PLAIN_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*", re.ASCII)
_BASIC_DATE = re.compile(r"\d{8}", re.ASCII)
_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
ALLOWED = "texts in UTF-8, numbers, truth values, dates, and lists of these"


class CannotBeKept(ValueError):
    """A value that a bundle cannot hold; the text says why."""


def plain(value: Any) -> Any:
    """The value as a text, a number, a truth value or a list of these; None for a missing one.

    Raises: CannotBeKept for a nested value, a text that is no UTF-8, and anything else that is not :data:`ALLOWED`.
    """
    if isinstance(value, (list, tuple, np.ndarray)):
        return [kept for entry in value if (kept := _scalar(entry)) is not None]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, (bool, float)):
        if value is None or value != value:  # NaN is how data frames write a missing number
            return None
        return float(value) if isinstance(value, np.floating) else value
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, np.generic):
        return _scalar(value.item())
    if isinstance(value, (date, time)):  # a datetime is a date too
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise CannotBeKept("bytes that are no UTF-8") from error
    if isinstance(value, (Mapping, list, tuple, np.ndarray)):
        raise CannotBeKept("a nested value")
    if isinstance(value, Exception):  # of a cell that Arrow could not convert
        raise CannotBeKept(f"not readable ({value})")
    raise CannotBeKept(f"a value of type {type(value).__name__}")


def _utf8(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CannotBeKept("a text with half of a surrogate pair, which is no UTF-8") from error
    return text


def _whole(value: int) -> int | str:
    bits = value.bit_length()
    if bits <= _INT64_BITS:
        return value
    if bits > _MAX_BITS:
        raise CannotBeKept("a whole number of more than 1,200 digits")
    return str(value)


def _decimal(value: Decimal) -> Any:
    if not value.is_finite():
        return None
    if value.adjusted() <= 400 and value == value.to_integral_value():
        return _whole(int(value))
    return float(value)


def uniform(values: Sequence[Any]) -> pa.Array:
    """The values of one attribute as one Arrow column; None is null. Values of several types become texts, and single
    values among lists become lists of one: the functions below read both the same.
    """
    if any(isinstance(value, list) for value in values):
        values = [value if value is None or isinstance(value, list) else [value] for value in values]
    entries = (entry for value in values for entry in (value if isinstance(value, list) else (value,)))
    # Arrow would take False for 0.0 and refuse 1 beside "1".
    if len({float if kind is int else kind for kind in set(map(type, entries)) - {type(None)}}) <= 1:
        with suppress(pa.ArrowException, OverflowError):  # whole numbers that a column of fractions would round
            return pa.array(values)
    return pa.array([None if value is None else _as_text(value) for value in values])


def _as_text(value: Any) -> Any:
    return texts(value) if isinstance(value, list) else value_text(value)


def single(value: Any) -> Any:
    """The value itself; of a list of one, its entry."""
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def number(value: Any) -> float:
    """A number, a number written as a text, or else a date in seconds since 1970 (UTC); NaN for anything else."""
    value = single(value)
    if isinstance(value, str):
        found = _number_of_text(value)
        return _seconds_of_date(value) if math.isnan(found) else found
    return _finite(value)


def moment(value: Any) -> float:
    """Seconds since 1970 (UTC) of a date or time in ISO 8601, or of a number; NaN for anything else."""
    value = single(value)
    if isinstance(value, str):
        found = _seconds_of_date(value)
        return _number_of_text(value) if math.isnan(found) else found
    return _finite(value)


def truth(value: Any) -> bool | None:
    """A truth value, also one written as 1 or 0, or as a text; None for anything else."""
    value = single(value)
    if value is None or isinstance(value, (list, tuple)):
        return None
    return _TRUTHS.get(value_text(value).strip().lower())


def texts(value: Any) -> Sequence[str]:
    """The texts of a list or of a single value, in the form that declared values are compared with."""
    if value is None:
        return ()
    entries = value if isinstance(value, (list, tuple)) else (value,)
    return [value_text(entry) for entry in entries if entry is not None]


def label_code(codes: Mapping[str, int], value: Any) -> int:
    """The code of a declared value, 0 where it is missing or not declared (:func:`spelled_code`)."""
    value = single(value)
    if value is None or isinstance(value, (list, tuple)):
        return 0
    return spelled_code(codes, value_text(value))


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    return float(value) if abs(value) <= MAX_NUMBER else math.nan


def _number_of_text(text: str) -> float:
    return _finite(float(text)) if _NUMBER.fullmatch(text) else math.nan


def release_s(text: str) -> float | None:
    """Seconds since 1970 of a release that is a text: ISO 8601, also YYYYMMDD; or else a number, which is seconds. None for
    any other text.
    """
    if PLAIN_NUMBER.fullmatch(text) and not is_basic_date(text):
        return float(text)
    try:
        # parse_time takes digits alone for milliseconds.
        return parse_time(f"{text}T00" if text.isdigit() else text) / 1000.0
    except ValueError:
        return None


def is_basic_date(text: str) -> bool:
    """Whether a text is a date as YYYYMMDD, from 1800 up to 2100."""
    if not _BASIC_DATE.fullmatch(text) or not "1800" <= text < "2100":
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _seconds_of_date(text: str) -> float:
    found = release_s(text)
    return math.nan if found is None else _finite(found)
