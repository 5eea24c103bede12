"""Records of the item-counts topic: what is popular now, as a table of decayed counts of plays that the trainer writes.

key      block-<number>                   head
value    entries of some of the items     JSON (stream.wire.messages.ItemCountsHead): what the blocks must be

An entry is 56 bytes, little-endian: xxh3-64 of the item's id, the times of its first and its newest play in milliseconds since
1970 (64-bit integers), and a sum for each of the head's ``decays_s`` (64-bit floats), as of the newest play. An item's place
never changes, so a table is written by writing the blocks that changed, and then the head.

A writer can be killed between two records, two can write at once while the lead changes hands, and compaction keeps the newest
record of each key. So the head names its blocks by their hashes, and a table is there only where all of them are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import xxhash

from intentrec_core.engine.item_counts import ItemCounts
from intentrec_core.features.count_columns import DECAYS_S
from intentrec_core.times import parse_time
from stream.wire.codec import decode_counts_head
from stream.wire.messages import ItemCountsHead

logger = logging.getLogger(__name__)

HEAD_KEY = b"head"
_BLOCK_KEY = re.compile(rb"block-([0-9]{1,9})")


def block_key(number: int) -> bytes:
    """The key of a block's record."""
    return b"block-%d" % number


def block_hash(value: bytes) -> str:
    """The hash by which a head names a block."""
    return xxhash.xxh3_64_hexdigest(value)


@dataclass(frozen=True, slots=True)
class PackedCounts:
    """A complete table: its head, and the values of its blocks in their order."""

    head: ItemCountsHead
    blocks: Sequence[bytes]


class CountsAssembly:
    """Puts tables together from records, in the order of the topic. ``newest``: the newest complete table, None before the first.

    ``last_sequence``: the highest number of a head, complete or not; 0 before the first. ``num_incomplete``: how many heads in a
    row were of a table whose blocks are not all here.
    """

    def __init__(self) -> None:
        self.newest: PackedCounts | None = None
        self.last_sequence = 0
        self.num_incomplete = 0
        self._blocks: dict[int, tuple[str, bytes]] = {}

    def take(self, key: bytes | None, value: bytes | None) -> bool:
        """Takes the next record. Returns whether it makes a newer table complete.

        Raises: ValueError for a record that is neither a block nor a head.
        """
        if not key or value is None:
            raise ValueError(f"the key is {key!r} and the value {'missing' if value is None else 'present'}")
        if match := _BLOCK_KEY.fullmatch(key):
            self._blocks[int(match[1])] = block_hash(value), value
            return False
        if key != HEAD_KEY:
            raise ValueError(f"the key is {key[:64]!r}; allowed: head, or block-<number>")
        try:
            head = decode_counts_head(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"the value is not a head: {error}") from error
        if tuple(head.decays_s) != DECAYS_S:
            raise ValueError(f"sums of other decays: {head.decays_s}; a trainer of another release wrote them")
        self.last_sequence = max(self.last_sequence, head.sequence)
        if self.newest is not None and head.sequence <= self.newest.head.sequence:
            return False
        held = [self._blocks.get(number, ("", b"")) for number in range(len(head.blocks))]
        if any(own != named for (own, _), named in zip(held, head.blocks, strict=True)):
            self.num_incomplete += 1
            return False
        self.newest, self.num_incomplete = PackedCounts(head, [block for _, block in held]), 0
        return True


def read_table(packed: PackedCounts) -> ItemCounts | None:
    """A complete table as its columns; None, with a warning, where a number in it is none that plays give."""
    head = packed.head
    try:
        return ItemCounts.of(packed.blocks, head.sequence, head.event_time_ms, parse_time(head.written_at) / 1000.0)
    except ValueError as error:
        logger.warning("table %d of counts is left out: %s", head.sequence, error)
        return None
