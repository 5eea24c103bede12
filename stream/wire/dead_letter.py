"""Builds the dead letter of a play that cannot be processed: its original bytes, the reason, and its position in the log.

A dead letter can be sent again: key, value and headers are the producer's. Of a value larger than MAX_KEPT_BYTES it keeps the
first 64 KiB, the length and the SHA-256, which is enough to find the play at its source.
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
MAX_DETAIL_BYTES = 512

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


def dead_letter(record: SourceRecord, reason: RejectReason, detail: str = "") -> DeadLetter:
    """The dead letter of ``record``.

    Headers: first those of the producer, then ``intentrec-error`` (the reason), ``intentrec-detail``, ``intentrec-topic``,
    ``intentrec-partition`` and ``intentrec-offset``. A truncated value adds ``intentrec-length`` and ``intentrec-sha256`` of
    the complete value, a truncated key ``intentrec-key-length`` and ``intentrec-key-sha256``, and a record without a value
    ``intentrec-null-value``.
    """
    own = kept_headers(record.headers)
    value, key = record.value, record.key
    own.append((HEADER_PREFIX + "error", reason.value.encode()))
    if detail:
        own.append((HEADER_PREFIX + "detail", detail.encode(errors="replace")[:MAX_DETAIL_BYTES]))
    own.append((HEADER_PREFIX + "topic", record.topic.encode()))
    own.append((HEADER_PREFIX + "partition", str(record.partition).encode()))
    own.append((HEADER_PREFIX + "offset", str(record.offset).encode()))
    if value is None:
        own.append((HEADER_PREFIX + "null-value", b"true"))
        value = b""
    elif len(value) > MAX_KEPT_BYTES:
        own.append((HEADER_PREFIX + "length", str(len(value)).encode()))
        own.append((HEADER_PREFIX + "sha256", hashlib.sha256(value).hexdigest().encode()))
        value = bytes(value[:KEPT_OF_OVERSIZED_BYTES])
    if key is not None and len(key) > KEPT_OF_OVERSIZED_BYTES:
        own.append((HEADER_PREFIX + "key-length", str(len(key)).encode()))
        own.append((HEADER_PREFIX + "key-sha256", hashlib.sha256(key).hexdigest().encode()))
        key = bytes(key[:KEPT_OF_OVERSIZED_BYTES])
    return DeadLetter(key, bytes(value), tuple(own))


def kept_headers(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The producer's headers that are kept, in order: without those that only we may set, up to MAX_KEPT_HEADER_BYTES."""
    kept, left_bytes = [], MAX_KEPT_HEADER_BYTES
    for name, content in headers:
        content = content or b""
        left_bytes -= len(name) + len(content)
        # A producer must not be able to forge the origin of a dead letter.
        if left_bytes >= 0 and (name in KEPT_OF_OURS or not name.startswith(HEADER_PREFIX)):
            kept.append((name, bytes(content)))
    return kept
