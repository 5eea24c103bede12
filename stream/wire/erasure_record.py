"""Erasure requests: control records on the plays topic, so every reader sees them in order with the plays.

    key      user id in UTF-8, as for a play; therefore in the same partition as the member's plays
    header   intentrec-control: forget
    value    none

On ``forget``, worker and trainer drop all data of the member up to this record. Later plays begin a new history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from msgspec import Struct

from intentrec_core.errors import RejectReason
from intentrec_core.limits import MAX_ID_BYTES
from stream.wire.codec import RejectedPlay

if TYPE_CHECKING:
    from stream.wire.records import SourceRecord

CONTROL_HEADER = "intentrec-control"
FORGET = b"forget"
#: Part of every report of missed records of the plays topic, because erasure requests are among these records.
RESEND_ERASURES = "; erasure requests may have been among them: resend the erasure requests of that period"


class ErasureRequest(Struct, frozen=True, gc=False):
    """A request to erase a member."""

    user_id: str


def is_erasure_request(record: SourceRecord) -> bool:
    """Whether a record is an erasure request, valid or not, and not a play. Cost: nothing for a record without headers."""
    return bool(record.headers) and any(name == CONTROL_HEADER for name, _ in record.headers)


def read_erasure_request(record: SourceRecord) -> ErasureRequest | RejectedPlay:
    """The erasure request in a control record, or the reason to reject it."""
    commands = [content for name, content in record.headers if name == CONTROL_HEADER]
    if commands != [FORGET]:
        shown = ", ".join(map(repr, commands))[:100]
        return RejectedPlay(RejectReason.UNKNOWN_SCHEMA, f"{CONTROL_HEADER} is {shown}; allowed: forget, once")
    key = record.key or b""
    if not 1 <= len(key) <= MAX_ID_BYTES:
        return RejectedPlay(
            RejectReason.INVALID_FIELD, f"a control record's key has {len(key)} bytes; allowed: 1 to {MAX_ID_BYTES}"
        )
    try:
        return ErasureRequest(key.decode())
    except UnicodeDecodeError:
        return RejectedPlay(RejectReason.INVALID_FIELD, "a control record's key is not user_id in UTF-8")


def split_at_erasures(
    batches: Mapping[int, Sequence[SourceRecord]],
) -> Iterator[Mapping[int, Sequence[SourceRecord]]]:
    """Splits the batches into chunks so that an erasure request is always the last record of its partition in a chunk.

    State derived from a member's history can then be dropped between two chunks; no code has to handle a member that is erased
    and returns within one chunk.
    """
    if not any(map(is_erasure_request, chain.from_iterable(batches.values()))):
        yield batches
        return
    split = {partition: list(_split(records)) for partition, records in batches.items()}
    for chunks in zip_longest(*split.values(), fillvalue=()):
        yield {partition: chunk for partition, chunk in zip(split, chunks, strict=True) if chunk}


def _split(records: Sequence[SourceRecord]) -> Iterator[Sequence[SourceRecord]]:
    start = 0
    for place, record in enumerate(records, start=1):
        if is_erasure_request(record):
            yield records[start:place]
            start = place
    if start < len(records):
        yield records[start:]
