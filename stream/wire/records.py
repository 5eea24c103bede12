"""The records that enter and leave the pipeline: the types that delivery and pipeline share.

This module imports no Kafka client. An aiokafka ``ConsumerRecord`` satisfies :class:`SourceRecord` as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from stream.wire.deferred_counts import DeferredCounts

ID_HEADER = "intentrec-id"


class SourceRecord(Protocol):
    """One consumed record of the plays topic. An aiokafka ``ConsumerRecord`` is one."""

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
        """Whether the value is JSON that the publisher closes with ``,"latency_s":SECONDS}``."""
        return self in (OutputKind.RECOMMENDATION, OutputKind.INTENT)


class OutputRecord(Struct, frozen=True, gc=False):
    """One record to be published.

    ``value``: for a recommendation or an intent a JSON object WITHOUT its closing brace: the publisher appends
    ``,"latency_s":0.0123}`` right before sending, so that the figure is of the publication. For a dead letter or a late
    play the value is what the record's own topic gets, unchanged.

    ``headers`` begin with ``intentrec-id``, ``<topic>-<partition>-<offset>-<kind>``: the same for every repeat of this output.
    """

    kind: OutputKind
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    source_offset: int
    source_timestamp_ms: int


@dataclass(slots=True)
class PartitionResult:
    """What processing one partition's records of a micro-batch came to.

    ``outputs`` of a member are in source order; ``changelog`` brings the partition's changelog up to the state at ``next_offset``
    (later records of a key replace earlier ones). The counts add up to ``num_records``; ``counts`` is what metrics are raised
    by once this is committed.
    """

    partition: int
    next_offset: int
    num_records: int
    outputs: list[OutputRecord] = field(default_factory=list)
    changelog: dict[bytes, bytes | None] = field(default_factory=dict)
    num_applied: int = 0
    num_duplicates: int = 0
    num_late: int = 0
    num_replayed: int = 0
    num_rejected: int = 0
    num_forgotten: int = 0
    counts: DeferredCounts = field(default_factory=DeferredCounts)

    def take(self, share: PartitionResult) -> None:
        """Adds what was answered apart: outputs and counts, and no records."""
        self.outputs += share.outputs
        self.counts.take(share.counts)


Write = Callable[[], list[PartitionResult]]
"""Completes what was begun of a micro-batch: writes its outputs, and has its results. Called once, on any thread."""


def output_id(record: SourceRecord, kind: OutputKind) -> bytes:
    """The id of an output, derived from the position of its play only."""
    return b"%b-%d-%d-%b" % (record.topic.encode(), record.partition, record.offset, _KIND_BYTES[kind])


_KIND_BYTES = {kind: kind.value.encode() for kind in OutputKind}
