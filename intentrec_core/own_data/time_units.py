"""In which unit the times of a foreign table are: told from its first rows, and applied to all.

A number fits in one unit only (:mod:`intentrec_core.times`), so what most numbers of a column fit in is its unit. A row whose
time does not fit in it is rejected: a unit that changes from row to row is a fault in the file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.own_data.cells import as_numbers, as_texts, plain_column
from intentrec_core.plays.text_columns import is_text
from intentrec_core.times import fitting_unit, outside, parse_time, unit_hint

#: So many rows tell the unit.
_NUM_TOLD_BY = 1_000


class TimeUnit(StrEnum):
    """How a column says when something was."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"
    ISO = "iso"
    FORMAT = "format"
    TYPED = "typed"


_NAMES = {
    TimeUnit.SECONDS: "seconds (s)",
    TimeUnit.MILLISECONDS: "milliseconds (ms)",
    TimeUnit.MICROSECONDS: "microseconds (µs)",
    TimeUnit.NANOSECONDS: "nanoseconds (ns)",
}
_OF_NAMES = {name: unit for unit, name in _NAMES.items()}
#: By how much a number of each unit is multiplied, or divided, to be milliseconds.
_TIMES, _OVER = {TimeUnit.SECONDS: 1_000}, {TimeUnit.MICROSECONDS: 1_000, TimeUnit.NANOSECONDS: 1_000_000}


@dataclass(frozen=True, kw_only=True)
class TimeReader:
    """Reads a column's times as milliseconds since 1970 (UTC). Only times in [``earliest_ms``, ``end_ms``) are any."""

    column: str
    unit: TimeUnit
    earliest_ms: int
    end_ms: int
    format: str = ""

    @property
    def line(self) -> str:
        """What the times were taken for."""
        if self.unit is TimeUnit.TYPED:
            return "typed times; without a time zone they are in UTC"
        if self.unit is TimeUnit.ISO:
            return "texts in ISO 8601; without an offset they are in UTC"
        if self.unit is TimeUnit.FORMAT:
            return f"texts as {self.format}; without an offset they are in UTC"
        return f"{_NAMES[self.unit]} since 1970"

    def read(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """The times as i64 milliseconds, null where a cell is none within the limits."""
        column = plain_column(column)
        if self.unit in _NAMES:
            times = self._of_numbers(as_numbers(column))
        elif self.unit is TimeUnit.TYPED:
            times = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        else:
            parsed = [self._of_text(text) for text in as_texts(column).cast(pa.binary()).to_pylist()]
            times = pa.chunked_array([pa.array(parsed, pa.int64())])
        fits = pc.and_(pc.greater_equal(times, self.earliest_ms), pc.less(times, self.end_ms))
        return pc.if_else(fits, times, pa.scalar(None, pa.int64()))

    def why_not(self, value: object) -> str:
        """Why a cell is no such time, in one line."""
        shown = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        text = str(shown).strip()
        try:
            ts_ms = self._of_text(text.encode()) if isinstance(shown, str) and self.unit not in _NAMES else None
            number = float(text) if self.unit in _NAMES else None
        except (ValueError, OverflowError):
            ts_ms = number = None
        if ts_ms is not None:
            return outside(self.column, text, ts_ms, self.earliest_ms, self.end_ms)
        if number is not None and abs(number) < 2**63:
            hint = unit_hint(number, self.earliest_ms, self.end_ms)
            return f"{self.column} is {text[:40]}, which is no time in {_NAMES[self.unit]}{hint}"
        return f"{self.column} is {text[:40]!r}, which cannot be read as {self.line}"

    def _of_numbers(self, numbers: pa.ChunkedArray) -> pa.ChunkedArray:
        by, over = _TIMES.get(self.unit, 1), _OVER.get(self.unit, 1)
        if pa.types.is_floating(numbers.type):
            limit = float(2**62)
            within = pc.less(pc.abs(numbers), limit / by)
            numbers = pc.if_else(within, numbers.cast(pa.float64()), pa.scalar(None, pa.float64()))
            return pc.floor(pc.divide(pc.round(pc.multiply(numbers, float(by)), ndigits=3), float(over))).cast(
                pa.int64()
            )
        limit = 2**62 // by
        numbers = numbers.cast(pa.int64(), safe=False)
        within = pc.and_(pc.less(numbers, limit), pc.greater(numbers, -limit))
        numbers = pc.if_else(within, numbers, pa.scalar(None, pa.int64()))
        return pc.divide(pc.multiply(numbers, by), over)

    def _of_text(self, cell: bytes | None) -> int | None:
        """Milliseconds of a text; None for one that cannot be read."""
        if cell is None:
            return None
        try:
            text = cell.decode().strip()
            if self.unit is TimeUnit.FORMAT:
                moment = datetime.strptime(text, self.format)
                return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
            ts_ms = _iso_ms(text)
        except (ValueError, OverflowError):  # bytes that are no UTF-8 are a ValueError too
            return None
        return ts_ms if abs(ts_ms) < 2**63 else None


def tell_times(
    file: str,
    name: str,
    column: pa.ChunkedArray,
    *,
    earliest_ms: int,
    end_ms: int,
    unit: TimeUnit | None = None,
    format: str = "",
) -> TimeReader:
    """How the times of a column are read, told from its first rows unless ``unit`` or ``format`` (as of strptime) says it.

    Raises: DataError when nothing fits; ConfigError for a format that has no date.
    """
    column = plain_column(column.slice(0, _NUM_TOLD_BY))
    if format:
        if "%" not in format:
            raise ConfigError(f"--time-format {format!r}; allowed: a format such as %d.%m.%Y %H:%M:%S")
        unit = TimeUnit.FORMAT
    if unit is None:
        unit = _told(file, name, column, earliest_ms, end_ms)
    reader = TimeReader(column=name, unit=unit, earliest_ms=earliest_ms, end_ms=end_ms, format=format)
    given = column.drop_null()
    if unit is not TimeUnit.TYPED and not len(reader.read(given).drop_null()):
        why = reader.why_not(given[0].as_py()) if len(given) else f"{name} is empty in the first {len(column):,} rows"
        raise DataError(
            f"{file}: no time can be read: {why}; name another column with --time, the unit with --time-unit (s, ms, us, ns "
            "or iso), or how it is written with --time-format, for instance '%d.%m.%Y %H:%M:%S'"
        )
    return reader


def _told(file: str, name: str, column: pa.ChunkedArray, earliest_ms: int, end_ms: int) -> TimeUnit:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return TimeUnit.TYPED
    numbers = as_numbers(column).drop_null().to_pylist()
    if 2 * len(numbers) <= len(column.drop_null()):
        if is_text(kind):
            return TimeUnit.ISO
        raise DataError(f"{file}: column {name} is {kind}, which is no time: name another one with --time")
    units = Counter(fitting_unit(number, earliest_ms, end_ms) for number in numbers)
    units.pop(None, None)
    most = units.most_common(1)
    return _OF_NAMES[most[0][0]] if most and most[0][0] is not None else TimeUnit.MILLISECONDS


def _iso_ms(text: str) -> int:
    """As :func:`parse_time`, and in two forms that logs have: slashes after the year, and UTC written out."""
    for zone in (" UTC", " GMT"):
        text = text.removesuffix(zone)
    if text[4:5] == "/":
        text = text.replace("/", "-", 2)
    return parse_time(text)
