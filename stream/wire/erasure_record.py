"""Control records: orders that travel on the plays topic, so that everybody meets them in order with the plays.

    key      user id in UTF-8, as for a play; the partition is the plays' too
    header   intentrec-control: forget
    value    none

``forget``: worker and trainer drop what they hold of the member up to here. Plays behind it begin a new history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from aiokafka.partitioner import murmur2
from msgspec import Struct

from intentrec_core.errors import RejectReason
from stream.wire.codec import RejectedPlay
from stream.wire.messages import MAX_ID_LENGTH

if TYPE_CHECKING:
    from stream.wire.records import SourceRecord

CONTROL_HEADER = "intentrec-control"
FORGET = b"forget"


class ErasureRequest(Struct, frozen=True, gc=False):
    """The order to forget a member."""

    user_id: str


def is_erasure_request(record: SourceRecord) -> bool:
    """Whether a record is an order, well formed or not, and no play. Cost: nothing for a record without headers."""
    return bool(record.headers) and any(name == CONTROL_HEADER for name, _ in record.headers)


def read_erasure_request(record: SourceRecord) -> ErasureRequest | RejectedPlay:
    """The order a control record holds, or why it cannot be followed."""
    orders = [content for name, content in record.headers if name == CONTROL_HEADER]
    if orders != [FORGET]:
        shown = ", ".join(repr(order) for order in orders)[:100]
        return RejectedPlay(RejectReason.UNKNOWN_SCHEMA, f"{CONTROL_HEADER} is {shown}; known: forget, once")
    key = record.key or b""
    if not 1 <= len(key) <= MAX_ID_LENGTH:
        return RejectedPlay(
            RejectReason.INVALID_FIELD, f"a control record's key has {len(key)} bytes; allowed: 1 to {MAX_ID_LENGTH}"
        )
    try:
        return ErasureRequest(key.decode())
    except UnicodeDecodeError:
        return RejectedPlay(RejectReason.INVALID_FIELD, "a control record's key is not user_id in UTF-8")


def home_partition(key: bytes, num_partitions: int) -> int:
    """Where a member's plays are: Kafka's murmur2 of their key."""
    return (int(murmur2(key)) & 0x7FFFFFFF) % num_partitions


def split_at_erasures(
    batches: Mapping[int, Sequence[SourceRecord]],
) -> Iterator[Mapping[int, Sequence[SourceRecord]]]:
    """The batches in parts, such that in each part a control record is the last one of its partition.

    What is derived from a member's history can then be dropped between two parts, and nothing needs to know of a member
    who is forgotten and comes back within one.
    """
    if not any(map(is_erasure_request, chain.from_iterable(batches.values()))):
        yield batches
        return
    cut = {partition: list(_cut(records)) for partition, records in batches.items()}
    for pieces in zip_longest(*cut.values(), fillvalue=()):
        yield {partition: piece for partition, piece in zip(cut, pieces, strict=True) if piece}


def _cut(records: Sequence[SourceRecord]) -> Iterator[Sequence[SourceRecord]]:
    start = 0
    for place, record in enumerate(records, start=1):
        if is_erasure_request(record):
            yield records[start:place]
            start = place
    if start < len(records):
        yield records[start:]
