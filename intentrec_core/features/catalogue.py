"""The items: id, title and whatever attributes a domain file may name. Read from Parquet or JSON lines.

This module knows nothing of rows, codes or domains: which attribute means what is declared elsewhere.
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

#: The limit of a play's ids: an item that no play could name is a mistake of the catalogue.
MAX_ITEM_ID_BYTES = 256


@dataclass(frozen=True, slots=True)
class Item:
    """One item. Attributes are texts, numbers, truth values, dates (ISO 8601) and lists of texts; absent is missing."""

    item_id: str
    title: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Catalogue:
    """Items in a fixed order, each id once.

    Raises: DataError for an id that is empty, longer than 256 bytes or there twice.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.items: list[Item] = list(items)
        self._by_id: dict[str, Item] = {}
        for item in self.items:
            if not item.item_id or len(item.item_id.encode()) > MAX_ITEM_ID_BYTES:
                raise DataError(f"catalogue: item_id {item.item_id[:40]!r}: give each item an id of 1 to 256 bytes")
            if item.item_id in self._by_id:
                raise DataError(f"catalogue: item_id {item.item_id!r} stands there twice: keep one row an item")
            self._by_id[item.item_id] = item

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]  # holds a list

    def get(self, item_id: str) -> Item | None:
        """The item of this id, or None."""
        return self._by_id.get(item_id)

    def merged(self, newer: Iterable[Item]) -> Catalogue:
        """This catalogue with ``newer`` items in place of those of the same id, and unknown ones behind."""
        by_id = dict(self._by_id)
        by_id.update((item.item_id, item) for item in newer)
        return Catalogue(by_id.values())

    def to_table(self) -> pa.Table:
        """Columns item_id, title and one per attribute; null where an item lacks it.

        Raises: DataError for an attribute whose values are of several types.
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
                raise DataError(f"catalogue: attribute {name!r} has values of several types: {error}") from error
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> Catalogue:
        """The inverse of :meth:`to_table`; dates and times become ISO 8601.

        Raises: DataError when item_id is missing or no text.
        """
        if "item_id" not in table.schema.names:
            raise DataError(f"catalogue: no column item_id among {', '.join(table.schema.names)}")
        return cls(_item(row, f"row {number}") for number, row in enumerate(table.to_pylist()))

    def save(self, path: Path) -> None:
        """Writes Parquet. A reader sees the old file or the whole new one.

        Raises: DataError when an attribute has values of several types; OSError when the disk refuses.
        """
        table = self.to_table()
        with replacing(path) as file:
            pq.write_table(table, file, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Reads ``.parquet``, or JSON lines under any other name.

        Raises: DataError, naming file and line, when it cannot be read.
        """
        try:
            if path.suffix == ".parquet":
                return cls.from_table(pq.read_table(path))
            with path.open(encoding="utf-8") as lines:
                return cls(_json_items(lines))
        except (OSError, UnicodeDecodeError, pa.ArrowException, DataError) as error:
            raise DataError(f"{path}: {error}") from error


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
