"""The records that enter and leave the pipeline: the types that delivery and pipeline share.

This module imports no Kafka client. An aiokafka ``ConsumerRecord`` satisfies :class:`SourceRecord` as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from stream.wire.deferred_counts import DeferredCounts

ID_HEADER = "intentrec-id"


class SourceRecord(Protocol):
    """One consumed record of the plays topic. Consumers of this project give them as ``ReadRecord``."""

    @property
    def topic(self) -> str:
        """Name of the plays topic."""
        ...

    @property
    def partition(self) -> int:
        """Partition of the plays topic."""
        ...

    @property
    def offset(self) -> int:
        """Offset in that partition."""
        ...

    @property
    def timestamp(self) -> int:
        """The record's own timestamp, in milliseconds since 1970."""
        ...

    @property
    def key(self) -> bytes | None:
        """The user id in UTF-8; None if the producer did not set it."""
        ...

    @property
    def value(self) -> bytes | None:
        """The play as JSON."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """The producer's headers."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of one fetch from a partition: every play in the log from offset ``start`` up to, but not including, ``end``.

    Offsets without a record belong to control records and aborted transactions, which consumers never receive.
    """

    start: int
    records: Sequence[SourceRecord]
    end: int


class OutputKind(StrEnum):
    """The topic an output goes to; also the last part of its id."""

    RECOMMENDATION = "recommendation"
    INTENT = "intent"
    DEAD_LETTER = "dead_letter"
    LATE = "late"

    @property
    def takes_latency(self) -> bool:
        """Whether the value is a message whose ``latency_s`` the publisher sets."""
        return self in (OutputKind.RECOMMENDATION, OutputKind.INTENT)


class OutputRecord(Struct, frozen=True, gc=False):
    """One record to be published.

    ``value`` is the record's value. Of a recommendation or an intent update the publisher replaces ``latency_s`` right before
    sending (:func:`stream.kafka.publisher.fill`), so that the figure is the one of the publication.

    ``headers`` begin with ``intentrec-id``, ``<topic>-<partition>-<offset>-<kind>``: the same for every repeat of this output.
    """

    kind: OutputKind
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    source_offset: int
    source_timestamp_ms: int


@dataclass(frozen=True, slots=True)
class FoldOutcomes:
    """What became of one partition's records in a micro-batch. The numbers add up to the number of records."""

    num_applied: int = 0
    num_duplicates: int = 0
    num_late: int = 0
    num_replayed: int = 0
    num_rejected: int = 0
    num_erasures: int = 0


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """What one partition's records of a micro-batch came to: outputs to publish, and changes for the next checkpoint.

    ``outputs`` of a member are in source order. ``changelog`` brings the partition's changelog up to the state at
    ``next_offset``; a later record of a key replaces an earlier one. ``counts`` raise the metrics once this is committed.
    A result with no records holds outputs of records that an earlier result has counted.
    """

    partition: int
    next_offset: int
    num_records: int
    outputs: Sequence[OutputRecord] = ()
    changelog: Mapping[bytes, bytes | None] = field(default_factory=dict)
    outcomes: FoldOutcomes = FoldOutcomes()
    counts: DeferredCounts = field(default_factory=DeferredCounts)


def output_id(record: SourceRecord, kind: OutputKind) -> bytes:
    """The id of an output, derived from the position of its play only."""
    return b"%b-%d-%d-%b" % (record.topic.encode(), record.partition, record.offset, _KIND_BYTES[kind])


_KIND_BYTES = {kind: kind.value.encode() for kind in OutputKind}
