"""Reads dead letters back and redrives them: sends each play to the plays topic again, with its bytes, key and headers.

    plays.dlq ─ dead letter ─▶ eligible? ─┬─▶ plays, with headers for the dead letter's place and the number of redrives
                                          └─▶ skipped, with the reason

A redriven play that fails again becomes a newer dead letter, which replaces the older one; after too many redrives it is skipped.
A dead letter whose redrive succeeded is not marked: if it is sent again, the play is a duplicate or late, and changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, RejectReason
from stream.kafka.clients import mark_retrieved
from stream.kafka.topic_reader import TopicReader
from stream.settings import Settings
from stream.wire.dead_letter import HEADER_PREFIX, KEPT_OF_OURS, REDRIVE_OF_HEADER, REDRIVES_HEADER
from stream.wire.routing import home_partition

#: A play that fails three times will keep failing: fix it at its source, or fix the worker.
MAX_REDRIVES = 3
#: Sends awaiting acknowledgement: at most this many are uncounted if a run is killed.
_MAX_IN_FLIGHT = 500


@dataclass(frozen=True, kw_only=True)
class StoredDeadLetter:
    """A dead letter as stored on its topic. ``value`` is None if the play had none.

    ``headers``: the producer's headers and those that a redrive keeps. ``partition`` and ``offset`` locate the dead letter;
    ``source`` is the topic, partition and offset of the play.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    reason: str
    detail: str
    source: tuple[str, int, int]
    is_cut: bool
    num_redrives: int
    redrive_of: str

    @property
    def place(self) -> str:
        """The dead letter's name: PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"

    @classmethod
    def of(cls, record: ConsumerRecord[Any, Any]) -> StoredDeadLetter:
        """Parses a record of the dead-letter topic; ``reason`` is empty if the record is not a dead letter."""
        own = {name: content for name, content in record.headers if name.startswith(HEADER_PREFIX)}

        def text(name: str) -> str:
            return own.get(HEADER_PREFIX + name, b"").decode(errors="replace")

        return cls(
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            key=record.key,
            value=None if HEADER_PREFIX + "null-value" in own else record.value,
            headers=tuple(
                (name, content)
                for name, content in record.headers
                if not name.startswith(HEADER_PREFIX) or name in KEPT_OF_OURS
            ),
            reason=text("error"),
            detail=text("detail"),
            source=(text("topic"), _number(text("partition")), _number(text("offset"))),
            is_cut=HEADER_PREFIX + "length" in own or HEADER_PREFIX + "key-length" in own,
            num_redrives=max(0, _number(own.get(REDRIVES_HEADER, b"0").decode(errors="replace"))),
            redrive_of=text("redrive-of"),
        )


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which dead letters to read. ``reasons``: empty means all.

    ``first`` and ``last`` bound the offsets by partition, inclusively. If either names a partition, only named ones are read.
    """

    reasons: frozenset[str] = frozenset()
    first: Mapping[int, int] = field(default_factory=dict)
    last: Mapping[int, int] = field(default_factory=dict)

    def has_partition(self, partition: int) -> bool:
        """Whether this selection reads a partition."""
        return partition in {*self.first, *self.last} or not (self.first or self.last)


class SkipReason(StrEnum):
    """Why a redrive skips a dead letter; the text completes "3 left: ..."."""

    NOT_A_DEAD_LETTER = "not a dead letter of a play"
    CUT = "only the start of the play's bytes was kept"
    FOLDED_IN = "the play is already in the member's history"
    OTHER_TOPIC = "the play came from another topic"
    FAILED_AGAIN = "was sent again and failed again; see the newer dead letter"
    TOO_OFTEN = "sent again too often"


async def dead_letters(reader: TopicReader, selection: Selection) -> AsyncIterator[StoredDeadLetter]:
    """The selected dead letters on the topic at the moment, by partition and offset.

    Raises: BrokerError if the topic cannot be read.
    """
    topic = reader.settings.dead_letter_topic
    for partition in range(await reader.num_partitions(topic)):
        if not selection.has_partition(partition):
            continue
        last = selection.last.get(partition)
        async for records in reader.read(topic, partition, first=selection.first.get(partition, 0)):
            for dead_letter in map(StoredDeadLetter.of, records):
                if last is not None and dead_letter.offset > last:
                    break
                if not selection.reasons or dead_letter.reason in selection.reasons:
                    yield dead_letter


@dataclass
class Redrive:
    """One redrive. ``sent`` counts acknowledged plays by reject reason; with ``dry_run``, plays that would have been sent.

    ``next_offsets``: by partition, where to continue after a run that reached its ``limit``.
    """

    settings: Settings
    selection: Selection
    limit: int | None = None
    max_redrives: int = MAX_REDRIVES
    dry_run: bool = False
    on_progress: Callable[[int], None] = lambda num_seen: None
    sent: Counter[str] = field(default_factory=Counter, init=False)
    skipped: Counter[SkipReason] = field(default_factory=Counter, init=False)
    next_offsets: dict[int, int] = field(default_factory=dict, init=False)
    _failed_again: set[str] = field(default_factory=set, init=False)

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Sends every eligible dead letter; each batch is acknowledged before the next one is read.

        Raises: BrokerError if a send fails; ``sent`` then counts the plays acknowledged so far.
        """
        async with TopicReader(self.settings) as reader:
            num_partitions = await reader.num_partitions(self.settings.plays_topic)
            newest: dict[int, int] = {}
            async for dead_letter in dead_letters(reader, Selection()):
                newest[dead_letter.partition] = dead_letter.offset
                self._failed_again.add(dead_letter.redrive_of)
            num_seen, in_flight = 0, list[tuple[StoredDeadLetter, asyncio.Future[Any]]]()
            async for dead_letter in dead_letters(reader, self.selection):
                if dead_letter.offset > newest.get(dead_letter.partition, -1):
                    continue  # arrived after the start, perhaps because of this run
                if self.limit is not None and self.sent.total() + len(in_flight) >= self.limit:
                    await self._settle(in_flight)
                    await self._note_rest(reader, dead_letter)
                    return
                num_seen += 1
                self.on_progress(num_seen)
                if (why := self._skip_reason(dead_letter)) is not None:
                    self.skipped[why] += 1
                elif self.dry_run:
                    self.sent[dead_letter.reason] += 1
                else:
                    in_flight.append((dead_letter, await self._send(producer, dead_letter, num_partitions)))
                if len(in_flight) >= _MAX_IN_FLIGHT:
                    await self._settle(in_flight)
            await self._settle(in_flight)

    def _skip_reason(self, dead_letter: StoredDeadLetter) -> SkipReason | None:
        topic, partition, _ = dead_letter.source
        if not dead_letter.reason or partition < 0:
            return SkipReason.NOT_A_DEAD_LETTER
        if dead_letter.is_cut:
            return SkipReason.CUT
        if dead_letter.reason in (RejectReason.INFERENCE_FAILED, RejectReason.OUTPUT_TOO_LARGE):
            return SkipReason.FOLDED_IN
        if topic != self.settings.plays_topic:
            return SkipReason.OTHER_TOPIC
        if dead_letter.place in self._failed_again:
            return SkipReason.FAILED_AGAIN
        return SkipReason.TOO_OFTEN if dead_letter.num_redrives >= self.max_redrives else None

    async def _send(
        self, producer: AIOKafkaProducer, dead_letter: StoredDeadLetter, num_partitions: int
    ) -> asyncio.Future[Any]:
        headers = [pair for pair in dead_letter.headers if pair[0] not in (REDRIVES_HEADER, REDRIVE_OF_HEADER)]
        headers += [
            (REDRIVES_HEADER, b"%d" % (dead_letter.num_redrives + 1)),
            (REDRIVE_OF_HEADER, dead_letter.place.encode()),
        ]
        try:
            future: asyncio.Future[Any] = await producer.send(
                self.settings.plays_topic,
                dead_letter.value,
                key=dead_letter.key,
                partition=self._target(dead_letter, num_partitions),
                headers=headers,
            )
        except KafkaError as error:
            raise self._refused(dead_letter, error) from error
        future.add_done_callback(mark_retrieved)  # if an earlier play is refused, nothing awaits this one
        return future

    def _target(self, dead_letter: StoredDeadLetter, num_partitions: int) -> int:
        """The partition of its key; without a key, or if producers use another partitioner, the play's original partition."""
        if dead_letter.key is not None and self.settings.plays_partitioner == "murmur2":
            return home_partition(dead_letter.key, num_partitions)
        return dead_letter.source[1] % num_partitions

    async def _settle(self, in_flight: list[tuple[StoredDeadLetter, asyncio.Future[Any]]]) -> None:
        while in_flight:
            dead_letter, acknowledged = in_flight[0]
            try:
                await acknowledged
            except KafkaError as error:
                raise self._refused(dead_letter, error) from error
            self.sent[dead_letter.reason] += 1
            del in_flight[0]

    async def _note_rest(self, reader: TopicReader, dead_letter: StoredDeadLetter) -> None:
        first, last = self.selection.first, self.selection.last
        for partition in range(dead_letter.partition, await reader.num_partitions(self.settings.dead_letter_topic)):
            if self.selection.has_partition(partition):
                start = dead_letter.offset if partition == dead_letter.partition else first.get(partition, 0)
                if start <= last.get(partition, start):
                    self.next_offsets[partition] = start

    def _refused(self, dead_letter: StoredDeadLetter, error: KafkaError) -> BrokerError:
        return BrokerError(
            f"the broker did not accept dead letter {dead_letter.place} ({error!r}); {self.sent.total()} were sent before it; "
            "running this again is safe"
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1
