"""Builds the dead letter of a play that cannot be processed: its original bytes, the reason, and its position in the log.

A dead letter can be sent again: key, value and headers are the producer's. Of a value larger than MAX_KEPT_BYTES, or too large
for the topic, it keeps the first 64 KiB, the length and the SHA-256, which is enough to find the play at its source.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream.wire.erasure_record import CONTROL_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from intentrec_core.errors import RejectReason
    from stream.wire.records import SourceRecord

MAX_KEPT_BYTES = 1_000_000
KEPT_OF_OVERSIZED_BYTES = 64 * 1024
#: Total size of the producer's headers that are kept. With value and key the record stays below the topic's limit.
MAX_KEPT_HEADER_BYTES = 64 * 1024
#: Counted for each header besides its name and content: their lengths, as Kafka writes them, take at most 5 bytes each.
HEADER_OVERHEAD_BYTES = 10
MAX_DETAIL_BYTES = 512
#: The default limit of the topic, less the framing of the record.
MAX_RECORD_BYTES = 2 * 1024 * 1024 - 1024

HEADER_PREFIX = "intentrec-"
#: How often a play was redriven from the dead-letter topic; absent if never.
REDRIVES_HEADER = "intentrec-redrives"
#: PARTITION:OFFSET of the dead letter from which the play was redriven.
REDRIVE_OF_HEADER = "intentrec-redrive-of"
#: Headers with our prefix that producers may send.
KEPT_OF_OURS = frozenset({CONTROL_HEADER, REDRIVES_HEADER, REDRIVE_OF_HEADER})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Key, value and headers of the record for the dead-letter topic."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def dead_letter(
    record: SourceRecord, reason: RejectReason, detail: str = "", max_bytes: int = MAX_RECORD_BYTES
) -> DeadLetter:
    """The dead letter of ``record``: at most ``max_bytes`` of key, value and headers.

    Headers: first those of the producer, then ``intentrec-error`` (the reason), ``intentrec-detail``, ``intentrec-topic``,
    ``intentrec-partition`` and ``intentrec-offset``. A truncated value adds ``intentrec-length`` and ``intentrec-sha256`` of
    the complete value, a truncated key ``intentrec-key-length`` and ``intentrec-key-sha256``, and a record without a value
    ``intentrec-null-value``.
    """
    why = [(HEADER_PREFIX + "error", reason.value.encode())]
    if detail:
        why.append((HEADER_PREFIX + "detail", detail.encode(errors="replace")[:MAX_DETAIL_BYTES]))
    return _set_aside(record, why, max_bytes)


def late_play(record: SourceRecord, max_bytes: int = MAX_RECORD_BYTES) -> DeadLetter:
    """A play that came too late, as it came, with its position: at most ``max_bytes`` of key, value and headers."""
    return _set_aside(record, [], max_bytes)


def _set_aside(record: SourceRecord, why: Sequence[tuple[str, bytes]], max_bytes: int) -> DeadLetter:
    own = [
        *kept_headers(record.headers),
        *why,
        (HEADER_PREFIX + "topic", record.topic.encode()),
        (HEADER_PREFIX + "partition", b"%d" % record.partition),
        (HEADER_PREFIX + "offset", b"%d" % record.offset),
    ]
    value, key = record.value, record.key
    if key is not None and len(key) > KEPT_OF_OVERSIZED_BYTES:
        own.append((HEADER_PREFIX + "key-length", b"%d" % len(key)))
        own.append((HEADER_PREFIX + "key-sha256", hashlib.sha256(key).hexdigest().encode()))
        key = bytes(key[:KEPT_OF_OVERSIZED_BYTES])
    if value is None:
        own.append((HEADER_PREFIX + "null-value", b"true"))
        return DeadLetter(key, b"", tuple(own))
    left_bytes = max_bytes - len(key or b"") - sum(header_bytes(name, content) for name, content in own)
    if len(value) > min(MAX_KEPT_BYTES, left_bytes):
        own.append((HEADER_PREFIX + "length", b"%d" % len(value)))
        own.append((HEADER_PREFIX + "sha256", hashlib.sha256(value).hexdigest().encode()))
        value = value[:KEPT_OF_OVERSIZED_BYTES]
    return DeadLetter(key, bytes(value), tuple(own))


def header_bytes(name: str, content: bytes) -> int:
    """An upper bound of the bytes that a header takes in a record."""
    return len(name.encode()) + len(content) + HEADER_OVERHEAD_BYTES


def kept_headers(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The producer's headers that are kept, in order: without those that only we may set, up to MAX_KEPT_HEADER_BYTES."""
    kept, left_bytes = [], MAX_KEPT_HEADER_BYTES
    for name, content in headers:
        content = content or b""
        left_bytes -= header_bytes(name, content)
        # A producer must not be able to forge the origin of a dead letter.
        if left_bytes >= 0 and (name in KEPT_OF_OURS or not name.startswith(HEADER_PREFIX)):
            kept.append((name, bytes(content)))
    return kept
