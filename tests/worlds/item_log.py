"""The items topic as a list, and what it says as of an offset: the plainest reading of the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from intentrec_core.features.catalogue import Item
from stream.wire.catalogue_record import ItemChanges, as_shown, item_hash, read_item

SHOWN_UP_TO = 4
"""The highest maturity that the small world's plays allow."""


@dataclass
class ItemLog:
    """Records by offset: item id and document, None for a tombstone."""

    records: list[tuple[str, dict[str, Any] | None]] = field(default_factory=list)

    def put(self, item: Item, **changed: Any) -> int:
        """Appends an item; returns its offset."""
        document = {"item_id": item.item_id, "title": item.title, "attributes": {**item.attributes}, **changed}
        self.records.append((item.item_id, document))
        return len(self.records) - 1

    def withdraw(self, item_id: str, *, tombstone: bool = True) -> int:
        """Appends a withdrawal; returns its offset."""
        self.records.append((item_id, None if tombstone else {"item_id": item_id, "withdrawn": True}))
        return len(self.records) - 1

    def as_of(self, offset: int) -> dict[str, dict[str, Any]]:
        """The items by id after the record at ``offset``."""
        items: dict[str, dict[str, Any]] = {}
        for item_id, document in self.records[: offset + 1]:
            items.pop(item_id, None)
            if document is not None and not document.get("withdrawn"):
                items[item_id] = document
        return items

    def showable(self, offset: int) -> dict[str, dict[str, Any]]:
        """The items that the small world's filters let through, watched ones included."""
        return {
            item_id: document
            for item_id, document in self.as_of(offset).items()
            if document["attributes"].get("available") is True
            and document["attributes"].get("maturity", SHOWN_UP_TO + 1) <= SHOWN_UP_TO
        }

    def changes(self, first: int, end: int | None = None) -> ItemChanges:
        """The records from ``first`` on up to ``end``, as a worker reads them."""
        stop = len(self.records) if end is None else end
        return ItemChanges({item_hash(i.encode()): _read(i, d) for i, d in self.records[first:stop]}, stop - 1)

    def compacted(self) -> ItemChanges:
        """What a worker reads from the beginning once compaction has left the newest record of each item and no tombstones."""
        newest = dict(self.records)
        kept = {item_hash(i.encode()): _read(i, d) for i, d in newest.items() if d is not None}
        return ItemChanges(kept, len(self.records) - 1)


def _read(item_id: str, document: dict[str, Any] | None) -> Item | None:
    value = None if document is None else json.dumps(document).encode()
    return as_shown(read_item(item_id.encode(), value))
