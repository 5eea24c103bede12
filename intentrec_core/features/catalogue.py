"""The item catalogue: id, title and any attributes of each item. It is read from Parquet or JSON lines.

This module does not know rows, label codes or domains: the domain declares what an attribute means.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from intentrec_core.durable_files import replacing
from intentrec_core.errors import DataError

#: The limit that plays have too: no play could refer to an item with a longer id.
MAX_ITEM_ID_BYTES = 256
#: Characters of a title that lists show. A title is there to be displayed, and a list holds up to 500 of them.
MAX_TITLE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One item. Attribute values are texts, numbers, truth values, dates (ISO 8601) and lists of texts. An absent
    attribute is missing.
    """

    item_id: str
    title: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


def shown_title(title: str) -> str:
    """The title as lists show it: whole, or its first 1,023 characters and "…"."""
    return title if len(title) <= MAX_TITLE_LENGTH else title[: MAX_TITLE_LENGTH - 1] + "…"


class Catalogue:
    """Items in a fixed order, with unique ids.

    Raises: DataError for an id that is empty, longer than 256 bytes, or not unique.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.items: list[Item] = list(items)
        self._by_id: dict[str, Item] = {}
        for item in self.items:
            if not item.item_id or len(item.item_id.encode()) > MAX_ITEM_ID_BYTES:
                raise DataError(f"catalogue: item_id {item.item_id[:40]!r}: an id must have 1 to 256 bytes")
            if item.item_id in self._by_id:
                raise DataError(f"catalogue: item_id {item.item_id!r} occurs twice: keep one row per item")
            self._by_id[item.item_id] = item

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

    def to_table(self) -> pa.Table:
        """Columns item_id, title and one per attribute, null for items that lack the attribute.

        Raises: DataError when an attribute's values have different types.
        """
        names = dict.fromkeys(name for item in self.items for name in item.attributes)
        columns: dict[str, pa.Array] = {
            "item_id": pa.array([item.item_id for item in self.items], pa.string()),
            "title": pa.array([item.title for item in self.items], pa.string()),
        }
        for name in names:
            try:
                columns[name] = pa.array([item.attributes.get(name) for item in self.items])
            except pa.ArrowException as error:
                raise DataError(f"catalogue: attribute {name!r} has values of different types: {error}") from error
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> Catalogue:
        """The inverse of :meth:`to_table`. Dates and times become ISO 8601 text.

        Raises: DataError when column item_id is missing or is not text.
        """
        if "item_id" not in table.schema.names:
            raise DataError(f"catalogue: no column item_id among {', '.join(table.schema.names)}")
        return cls(_item(row, f"row {number}") for number, row in enumerate(_in_python_units(table).to_pylist()))

    def save(self, path: Path) -> None:
        """Writes Parquet. A reader sees the old file or the whole new one.

        Raises: DataError when an attribute has values of several types; OSError when a write fails.
        """
        table = self.to_table()
        with replacing(path) as file:
            pq.write_table(table, file, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Reads Parquet from a file named ``*.parquet``, and JSON lines from any other file.

        Raises: DataError with the file, and the line or row, when it cannot be read.
        """
        try:
            if path.suffix == ".parquet":
                return cls.from_table(pq.read_table(path))
            with path.open(encoding="utf-8") as lines:
                return cls(_json_items(lines))
        except (OSError, UnicodeDecodeError, pa.ArrowException, DataError) as error:
            raise DataError(f"{path}: {error}") from error


def _in_python_units(table: pa.Table) -> pa.Table:
    """The table with timestamps that Python's datetime can hold: in microseconds, and in UTC where they have a time zone."""
    for number, (name, kind) in enumerate(zip(table.schema.names, table.schema.types, strict=True)):
        if pa.types.is_timestamp(kind) and (kind.unit == "ns" or kind.tz):
            held = pa.timestamp("us" if kind.unit == "ns" else kind.unit, "UTC" if kind.tz else None)
            table = table.set_column(number, name, table.column(number).cast(held, safe=False))
    return table


def _json_items(lines: Iterable[str]) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"line {number}: not a JSON object")
        yield _item(row, f"line {number}")


def _item(row: Mapping[str, Any], where: str) -> Item:
    item_id, title = row.get("item_id"), row.get("title")
    if not isinstance(item_id, str):
        raise DataError(f"{where}: item_id is {item_id!r}, must be a text")
    attributes = {name: _plain(value) for name, value in row.items() if name not in ("item_id", "title")}
    return Item(
        item_id, str(title or item_id), {name: value for name, value in attributes.items() if value is not None}
    )


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value  # a datetime is a date too
