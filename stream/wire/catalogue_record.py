"""Records of the items topic: an item as it is from now on, or its withdrawal.

key      item_id in UTF-8
value    the item (stream.wire.messages.CatalogueItem), or none: the item is withdrawn
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from intentrec_core.features.catalogue import Item
from intentrec_core.history.history import hash64
from intentrec_core.limits import MAX_ID_BYTES
from stream.wire.codec import decode_item
from stream.wire.messages import CatalogueItem


@dataclass(frozen=True, slots=True)
class ItemChanges:
    """What some records of the items topic say together: by the hash of its id the item as it is now, None if it is withdrawn.

    ``offset``: of the newest of these records. ``num_unreadable``: records that are no items; their items are withdrawn.
    ``is_whole``: they are all that the topic has, and an item that is not here is withdrawn.
    """

    items: Mapping[int, Item | None]
    offset: int
    num_unreadable: int = 0
    is_whole: bool = False


def read_item(key: bytes | None, value: bytes | None) -> CatalogueItem | None:
    """The item in a record; None for a withdrawal.

    Raises: ValueError with what is wrong. Treat an unreadable item as withdrawn: it must not be shown.
    """
    if not key or len(key) > MAX_ID_BYTES:
        raise ValueError(f"a key of {len(key or b'')} bytes; allowed: an item_id of 1 to {MAX_ID_BYTES} bytes of UTF-8")
    if not value:
        return None
    try:
        item = decode_item(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the value is not an item: {error}") from error
    if item.item_id.encode() != key:
        raise ValueError(f"the key {key!r} is not the item_id {item.item_id!r}")
    return item


def item_hash(key: bytes) -> int:
    """The hash by which plays and vocabularies know the item of a record with this key."""
    return hash64(key)


def as_shown(item: CatalogueItem | None) -> Item | None:
    """The item as a catalogue has it, attributes without a value left out; None if it is withdrawn."""
    if item is None or item.withdrawn:
        return None
    attributes = {name: value for name, value in (item.attributes or {}).items() if value is not None}
    return Item(item.item_id, item.title or item.item_id, attributes)
