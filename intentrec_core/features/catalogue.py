"""The item catalogue: id, title and any attributes of each item. It is read from Parquet or JSON lines.

What a bundle cannot hold is found when the catalogue is made: it costs the attribute of that item, or the row, and
:attr:`Catalogue.left_out` names it. So whatever a catalogue holds can be saved.

This module does not know rows, label codes or domains: the domain declares what an attribute means.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intentrec_core.domain.spec import value_text
from intentrec_core.durable_files import replacing
from intentrec_core.errors import DataError
from intentrec_core.features.attributes import ALLOWED, CannotBeKept, plain, uniform
from intentrec_core.limits import MAX_ID_BYTES, MAX_TITLE_LENGTH
from intentrec_core.parquet import end_of_whole, read_table
from intentrec_core.times import LOWEST_EARLIEST_MS, unit_hint

_ALLOWED_TITLES = "texts in UTF-8 and finite numbers"
#: Halves of surrogate pairs. JSON can spell one alone ("\\ud83d"), and no encoding can write it.
_HALVES = re.compile("[\ud800-\udfff]")
_HALF_IN_TITLE = "half of a surrogate pair, which is no UTF-8"
#: Of attributes, in all items together: each is a column of a bundle.
MAX_NAMES = 1_000
_FORMATS = "a catalogue is Parquet (*.parquet) or JSON lines, one object a line"
_NOT_ATTRIBUTES = ("item_id", "title")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: The years 1 to 9999, which Python knows, in seconds since 1970.
_FIRST_S, _END_S = -62_135_596_800, 253_402_300_800


@dataclass(frozen=True, slots=True)
class Item:
    """One item. Attribute values are texts, numbers, truth values, dates (ISO 8601) and lists of them. An absent
    attribute is missing.
    """

    item_id: str
    title: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class LeftOut(NamedTuple):
    """What a catalogue did not take: ``num`` values of an attribute, or whole rows (``attribute`` is empty), for one
    reason. ``first`` names the place of the first one: its row and item. ``allowed`` says what would have been taken.
    """

    attribute: str
    reason: str
    first: str
    num: int
    allowed: str = ALLOWED

    def line(self) -> str:
        """As one line of text, with what is allowed."""
        more = f" (and in {self.num - 1:,} more row{'s' if self.num > 2 else ''})" if self.num > 1 else ""
        if not self.attribute:
            return f"{self.first}: {self.reason}{more}: the row is left out"
        if self.reason == _HALF_IN_TITLE:
            return f"{self.first}, title: {self.reason}{more}: shown as U+FFFD"
        if self.allowed == _ALLOWED_TITLES:
            return f"{self.first}, title: {self.reason}{more}: the item_id is shown; allowed: {self.allowed}"
        return f"{self.first}, attribute {self.attribute}: {self.reason}{more}: left out; allowed: {self.allowed}"


def shown_title(title: str) -> str:
    """The title as lists show it: whole, or its first 1,023 characters and "…"."""
    return title if len(title) <= MAX_TITLE_LENGTH else title[: MAX_TITLE_LENGTH - 1] + "…"


class Catalogue:
    """Items in a fixed order, with unique ids.

    ``left_out`` says what was not taken of the items given, because no bundle can hold it. Of the names of attributes the first
    1,000 are taken.

    Raises: DataError for an id that is empty, longer than 256 bytes, no UTF-8, or not unique.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        found = _Findings()
        kept = []
        for number, item in enumerate(items):
            problem = _id_problem(item.item_id, end_of_whole(pa.float64()))
            if problem:
                raise DataError(f"catalogue: {problem}")
            kept.append(_kept(item, f"item {number}", found))
        self._hold(kept, found.left_out())

    def _hold(self, items: list[Item], left_out: tuple[LeftOut, ...], places: Sequence[str] = ()) -> None:
        """``places``: of the items in their file."""
        items, unnamed = _within_names(items)
        self.items = items
        self.left_out = (*left_out, *unnamed)
        self._by_id: dict[str, Item] = {item.item_id: item for item in items}
        if len(self._by_id) < len(items):
            twice = next(item_id for item_id, num in Counter(item.item_id for item in items).items() if num > 1)
            at = [at for at, item in enumerate(items) if item.item_id == twice][:2]
            first, second = (places[i] if places else f"item {i}" for i in at)
            raise DataError(
                f"catalogue: item_id {twice!r} occurs twice, in {first} and {second}: keep one row per item"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]  # holds a list

    def get(self, item_id: str) -> Item | None:
        """The item with this id, or None."""
        return self._by_id.get(item_id)

    def merged(self, newer: Iterable[Item]) -> Catalogue:
        """A catalogue in which ``newer`` items replace items with the same id; items with new ids are appended."""
        by_id = dict(self._by_id)
        by_id.update((item.item_id, item) for item in newer)
        return Catalogue(by_id.values())

    def without(self, attribute: str, item_ids: Container[str], left_out: Iterable[LeftOut]) -> Catalogue:
        """A catalogue in which these items lack an attribute; ``left_out`` says so too."""
        items = []
        for item in self.items:
            if item.item_id in item_ids:
                kept = {name: value for name, value in item.attributes.items() if name != attribute}
                item = Item(item.item_id, item.title, kept)
            items.append(item)
        catalogue = Catalogue.__new__(Catalogue)
        catalogue._hold(items, (*self.left_out, *left_out))
        return catalogue

    def to_table(self) -> pa.Table:
        """Columns item_id, title and one per attribute, null for items that lack the attribute. An attribute whose values
        have several types becomes texts, which mean the same to every field and filter.
        """
        names = dict.fromkeys(name for item in self.items for name in item.attributes)
        columns = {
            "item_id": pa.array([item.item_id for item in self.items], pa.string()),
            "title": pa.array([item.title for item in self.items], pa.string()),
        }
        columns |= {name: uniform([item.attributes.get(name) for item in self.items]) for name in names}
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> Catalogue:
        """The inverse of :meth:`to_table`. Dates and times become ISO 8601 text, decimals become numbers.

        Raises: DataError when column item_id is missing, or no row has a valid id.
        """
        if "item_id" not in table.schema.names:
            raise DataError(f"catalogue: no column item_id among {', '.join(table.schema.names)}")
        end_of_ids = end_of_whole(table.schema.field("item_id").type)
        columns = [_cells(column) for column in table.columns]
        names = table.schema.names
        rows = (dict(zip(names, row, strict=True)) for row in zip(*(cells for cells, _ in columns), strict=True))
        return cls._of_rows(
            ((f"row {number}", row) for number, row in enumerate(rows)),
            end_of_ids=end_of_ids,
            all_plain=all(is_plain for _, is_plain in columns),
        )

    @classmethod
    def _of_rows(
        cls,
        rows: Iterable[tuple[str, Mapping[str, Any] | CannotBeKept]],
        *,
        end_of_ids: int = end_of_whole(pa.float64()),
        all_plain: bool = False,
    ) -> Catalogue:
        """A catalogue of rows, each with its place in the file. Rows without a valid id are left out.

        ``end_of_ids``: from here on, ids that are numbers with a point cannot be told apart. ``all_plain``: every value is known
        to be one that a bundle can hold, and is not looked at.
        """
        found, kept = _Findings(), list[Item]()
        places: list[str] = []
        for place, row in rows:
            item_id: Any = None if isinstance(row, CannotBeKept) else _id(row.get("item_id"), end_of_ids)
            problem = str(row) if isinstance(row, CannotBeKept) else _id_problem(item_id, end_of_ids)
            if problem or isinstance(row, CannotBeKept):
                found.add("", problem, place)
                continue
            places.append(place)
            if all_plain:
                attributes = {n: value for n, value in row.items() if value is not None and n not in _NOT_ATTRIBUTES}
                kept.append(Item(item_id, _title(row.get("title"), item_id, place, found), attributes))
                continue
            attributes = {name: value for name, value in row.items() if name not in _NOT_ATTRIBUTES}
            title: Any = row.get("title")
            kept.append(_kept(Item(item_id, title, attributes), place, found))
        left_out = found.left_out()
        if left_out and not kept:
            raise DataError(f"{left_out[0].line()}, and no other row is valid")
        catalogue = cls.__new__(cls)
        catalogue._hold(kept, left_out, places)
        return catalogue

    def save(self, path: Path) -> None:
        """Writes Parquet. A reader sees the old file or the whole new one.

        Raises: OSError when a write fails.
        """
        table = self.to_table()
        with replacing(path) as file:
            pq.write_table(table, file, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Reads Parquet from a file named ``*.parquet``, and JSON lines from any other file, with or without a byte order mark.

        Raises: DataError with the file, and the line or row, when it cannot be read.
        """
        try:
            if path.suffix == ".parquet":
                return cls.from_table(read_table(path))
            # Bytes that are no UTF-8 become halves of surrogate pairs, so that their line can be named.
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                return cls._of_rows(_json_rows(lines))
        except (OSError, pa.ArrowException, DataError) as error:
            raise DataError(f"{path}: {error}") from error


class _Findings:
    """Collects what is left out: the first place of each kind, and how many there are."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[str, int]] = {}

    def add(self, attribute: str, reason: str, place: str, allowed: str = ALLOWED) -> None:
        kind = attribute, reason, allowed
        first, num = self._found.get(kind, (place, 0))
        self._found[kind] = (first, num + 1)

    def left_out(self) -> tuple[LeftOut, ...]:
        return tuple(
            LeftOut(attribute, reason, first, num, allowed)
            for (attribute, reason, allowed), (first, num) in self._found.items()
        )


def _within_names(items: list[Item]) -> tuple[list[Item], tuple[LeftOut, ...]]:
    """The items with the first :data:`MAX_NAMES` names of attributes, and what that leaves out."""
    names: dict[str, Any] = {}
    for item in items:
        names.update(item.attributes)
    if len(names) <= MAX_NAMES:
        return items, ()
    allowed = frozenset(islice(names, MAX_NAMES))
    kept, first, num = [], "", 0
    for item in items:
        attributes = {name: value for name, value in item.attributes.items() if name in allowed}
        if len(attributes) < len(item.attributes):
            first, num = first or f"item {item.item_id!r}", num + 1
            item = Item(item.item_id, item.title, attributes)
        kept.append(item)
    name = next(islice(names, MAX_NAMES, None))
    reason = f"it is one of {len(names) - MAX_NAMES:,} names beyond the first {MAX_NAMES:,}"
    return kept, (LeftOut(name or "''", reason, first, num, f"{MAX_NAMES:,} names of attributes"),)


def _kept(item: Item, place: str, found: _Findings) -> Item:
    """The item with what a bundle can hold of it; the same object where that is all."""
    attributes: dict[str, Any] = {}
    same = True
    for name, value in item.attributes.items():
        try:
            kept = plain(value)
            if name in _NOT_ATTRIBUTES or plain(name) is not name:
                raise CannotBeKept("not a name for an attribute")
        except CannotBeKept as error:
            found.add(ascii(name)[1:-1] or "''", str(error), f"{place}, item {item.item_id!r}")
            same = False
            continue
        same = same and kept is value and kept is not None
        if kept is not None:
            attributes[name] = kept
    title = _title(item.title, item.item_id, place, found)
    return item if same and title is item.title else Item(item.item_id, title, attributes)


def _title(value: Any, item_id: str, place: str, found: _Findings) -> str:
    """The title as it is shown: the id where there is none, and U+FFFD in place of what is no UTF-8."""
    if not isinstance(value, str):
        try:
            value = _as_title(value)
        except CannotBeKept as error:
            found.add("title", str(error), f"{place}, item {item_id!r}", _ALLOWED_TITLES)
            return item_id
    if not value.isascii() and _HALVES.search(value):
        found.add("title", _HALF_IN_TITLE, f"{place}, item {item_id!r}")
        return _HALVES.sub("\ufffd", value)
    return value or item_id


def _as_title(value: Any) -> str:
    """A title that is no text; empty for a missing one. Raises: CannotBeKept for one that cannot be shown."""
    kept = plain(value)
    if isinstance(value, (list, tuple, np.ndarray, date, time, timedelta)):
        raise CannotBeKept(f"a {type(value).__name__}")
    if isinstance(kept, float) and not math.isfinite(kept):
        raise CannotBeKept(f"{kept}, which is not finite")
    return "" if kept is None else value_text(kept)


def _id(value: Any, end_of_whole: int) -> Any:
    """An id as a text, which a whole number is in plays too, however it is written; any other value as it is."""
    if isinstance(value, float) and value.is_integer() and abs(value) < end_of_whole:
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _id_problem(item_id: Any, end_of_whole: int) -> str:
    """Why a value is no id of an item; empty for an id."""
    try:
        if isinstance(item_id, str) and 1 <= len(item_id.encode()) <= MAX_ID_BYTES:
            return ""
    except UnicodeEncodeError:
        pass
    return (
        f"item_id is {ascii(item_id)[:60]}; allowed: a text of 1 to {MAX_ID_BYTES} bytes of UTF-8, or a whole number (one with a "
        f"point only below 2^{end_of_whole.bit_length() - 1})"
    )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether all values of a column are texts, numbers, truth values or lists of these, apart from NaN."""
    types = pa.types
    if types.is_list(kind):
        return not types.is_nested(kind.value_type) and _is_plain(kind.value_type)
    is_number = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    return is_number or types.is_string(kind) or types.is_boolean(kind)


def _cells(column: pa.ChunkedArray) -> tuple[list[Any], bool]:
    """The column's values, and whether all are known to be plain ones. A value that Python has no form for, as a date
    after 9999, is replaced by the exception that says so.
    """
    if pa.types.is_timestamp(column.type):
        return _moments(column), False
    try:
        return column.to_pylist(), _is_plain(column.type) and not _may_have_nan(column)
    except (ValueError, OverflowError, pa.ArrowException):
        return [_cell(scalar) for scalar in column], False


def _moments(column: pa.ChunkedArray) -> list[Any]:
    """Values of a timestamp type, and exceptions for those outside the years that Python knows: these are in another unit."""
    kind = column.type
    numbers, per_s = column.cast(pa.int64()), _PER_SECOND[kind.unit]
    is_readable = pc.and_(
        pc.greater_equal(numbers, max(_FIRST_S * per_s, -(2**63))), pc.less(numbers, min(_END_S * per_s, 2**63 - 1))
    )
    readable = pc.if_else(is_readable, column, pa.scalar(None, kind))
    # Python has no nanoseconds, and not every name of a time zone.
    moments = readable.cast(pa.timestamp("us", "UTC" if kind.tz else None), safe=kind.unit != "ns").to_pylist()
    for row in np.flatnonzero(pc.invert(pc.fill_null(is_readable, True)).to_numpy()).tolist():
        hint = unit_hint(numbers[row].as_py(), LOWEST_EARLIEST_MS)
        moments[row] = ValueError(f"{kind} outside the years 1 to 9999{hint}")
    return moments


def _may_have_nan(column: pa.ChunkedArray) -> bool:
    types = pa.types
    if types.is_list(column.type):
        return types.is_floating(column.type.value_type)
    return types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return error


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any] | CannotBeKept]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                wrong = line[error.start].encode(errors="surrogateescape")[0]
                raise DataError(
                    f"line {number}: character {error.start + 1} is the byte 0x{wrong:02x}, which is not UTF-8; allowed: UTF-8"
                ) from error
        try:
            row = json.loads(line)
        except RecursionError:
            yield f"line {number}", CannotBeKept("it is nested too deeply to be read")
            continue
        except ValueError as error:
            row = _with_long_numbers(line, number, error)
        if not isinstance(row, dict):
            raise DataError(f"line {number}: not a JSON object; {_FORMATS}")
        yield f"line {number}", row


def _with_long_numbers(line: str, number: int, error: ValueError) -> Any:
    """The row, if nothing but a number of thousands of digits, which is valid JSON, was in the way: it becomes a text."""
    if isinstance(error, json.JSONDecodeError):
        raise DataError(f"line {number}: not JSON: {error}; {_FORMATS}") from error
    try:
        return json.loads(line, parse_int=str)
    except json.JSONDecodeError as other:  # a long number comes before a mistake in the line
        raise DataError(f"line {number}: not JSON: {other}; {_FORMATS}") from other
