"""The catalogue as the items topic has it now, for bundles that serve, that come, and that come back.

    changes ─▶ LiveCatalogue ─ all of it ─▶ ShownItems of a coming bundle, on any thread
                    └──────── the changes ─▶ ShownItems of the bundles that serve, between two micro-batches

It is a function of the records read so far, and knows items by the hash of their ids: a bundle's rows are in ShownItems.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from intentrec_core.features.catalogue import Item
from stream.wire.catalogue_record import ItemChanges


@dataclass(frozen=True, slots=True)
class _Entry:
    item: Item | None
    version: int


class LiveCatalogue:
    """Owned by the inference thread, which alone calls :meth:`apply`; any thread may call :meth:`everything`.

    ``offset``: of the newest record applied, -1 before the first. ``version`` grows with every change, also where a topic was
    made anew and its offsets begin again.
    """

    def __init__(self) -> None:
        self.offset = -1
        self.version = 0
        self.num_items = 0
        self._entries: dict[int, _Entry] = {}

    def apply(self, changes: ItemChanges) -> None:
        """Takes changes over. Cost: O(changes), or of all items where the changes are all that the topic has.

        What is as it was before is no change to the bundles.
        """
        version = self.version + 1
        items = dict.fromkeys(self._entries) | dict(changes.items) if changes.is_whole else changes.items
        for item_hash, item in items.items():
            held = self._entries.get(item_hash)
            if held is not None and held.item == item:
                continue
            # The newest entry is the last one: ``since`` reads backwards and stops at the first that it knows.
            self._entries.pop(item_hash, None)
            self._entries[item_hash] = _Entry(item, version)
            self.num_items += (item is not None) - (held is not None and held.item is not None)
        # Set the version last: a thread that still reads the old one gets these changes again from ``since``.
        self.offset, self.version = changes.offset, version

    def everything(self) -> CatalogueState:
        """All items shown or withdrawn as of now. Safe from any thread. Cost: a copy of the table."""
        # The version first: an entry that is newer than it is given once more by ``since``, which changes nothing.
        version, offset = self.version, self.offset
        entries = self._entries.copy()
        return CatalogueState({item_hash: entry.item for item_hash, entry in entries.items()}, offset, version)

    def since(self, version: int) -> CatalogueState:
        """What has changed after a version. Cost: O(changes)."""
        newer = takewhile(lambda held: held[1].version > version, reversed(self._entries.items()))
        return CatalogueState({item_hash: entry.item for item_hash, entry in newer}, self.offset, self.version)


@dataclass(frozen=True, slots=True)
class CatalogueState:
    """Items by hash, None where withdrawn, as of an offset and a version of the live catalogue."""

    items: dict[int, Item | None]
    offset: int
    version: int
