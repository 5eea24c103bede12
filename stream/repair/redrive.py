"""Dead dead_letters read back, and sent to the plays topic once more: original bytes, key and headers, and a count of how often.

    plays.dlq ─ dead_letter ─▶ may it? ─┬─▶ plays, with the dead_letter's place, and how often this play was sent again
                                   └─▶ left where it is: why

A redriven play that fails again comes back as a newer dead_letter, which stands for the older one, and is left there once it was
sent again too often. A dead_letter whose play was taken is not marked: sent twice, it has its event id twice, and changes
nothing the second time.
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
from stream.kafka.topic_reader import TopicReader
from stream.settings import Settings
from stream.wire.dead_letter import HEADER_PREFIX, KEPT_OF_OURS, REDRIVE_OF_HEADER, REDRIVES_HEADER
from stream.wire.erasure_record import home_partition

#: What fails three times fails for good: mend the play at its source, or the worker.
MAX_REDRIVES = 3
#: Acknowledged together: what a run that is killed may have sent without having counted it.
_MAX_IN_FLIGHT = 500


@dataclass(frozen=True, kw_only=True)
class StoredDeadLetter:
    """A dead dead_letter. ``value`` is None where the play had none; ``headers`` are the producer's, and those a redrive keeps.

    ``partition`` and ``offset`` are the dead_letter's own; ``source`` is the play's topic, partition and offset.
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
        """PARTITION:OFFSET: its name."""
        return f"{self.partition}:{self.offset}"

    @classmethod
    def of(cls, record: ConsumerRecord[Any, Any]) -> StoredDeadLetter:
        """Reads a record of the dead-dead_letter topic; one that is none has an empty reason."""
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
    """Which dead_letters. ``first`` and ``last`` bound offsets by partition, both included; partitions in neither are read only
    where both are empty."""

    reasons: frozenset[str] = frozenset()
    first: Mapping[int, int] = field(default_factory=dict)
    last: Mapping[int, int] = field(default_factory=dict)

    def has_partition(self, partition: int) -> bool:
        """Whether dead_letters of a partition are looked at."""
        return partition in {*self.first, *self.last} or not (self.first or self.last)


class Left(StrEnum):
    """Why a dead_letter is not sent again."""

    NO_LETTER = "no dead dead_letter of a play"
    CUT = "only the start of its bytes was kept"
    FOLDED_IN = "the member's history has it already"
    OTHER_TOPIC = "it came from another topic"
    FAILED_AGAIN = "was sent again and failed again; see its newer dead_letter"
    TOO_OFTEN = "sent again too often"


async def dead_letters(reader: TopicReader, selection: Selection) -> AsyncIterator[StoredDeadLetter]:
    """The dead_letters that are there now, partition by partition, in order.

    Raises: BrokerError.
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
    """One run. ``sent`` counts what was acknowledged, by reason, or with ``dry_run`` what would have been sent.

    ``next_offsets``: by partition, where a run that reached its ``limit`` would go on.
    """

    settings: Settings
    selection: Selection
    limit: int | None = None
    max_redrives: int = MAX_REDRIVES
    dry_run: bool = False
    on_letter: Callable[[int], None] = lambda num_seen: None
    sent: Counter[str] = field(default_factory=Counter, init=False)
    left: Counter[Left] = field(default_factory=Counter, init=False)
    next_offsets: dict[int, int] = field(default_factory=dict, init=False)
    _failed_again: set[str] = field(default_factory=set, init=False)

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Sends the dead_letters that may be sent, each portion acknowledged before the next is read.

        Raises: BrokerError; what was acknowledged by then is in ``sent``.
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
                    continue  # came meanwhile, perhaps of what is sent here
                if self.limit is not None and self.sent.total() + len(in_flight) >= self.limit:
                    await self._settle(in_flight)
                    await self._note_rest(reader, dead_letter)
                    return
                num_seen += 1
                self.on_letter(num_seen)
                if (why := self._why_left(dead_letter)) is not None:
                    self.left[why] += 1
                elif self.dry_run:
                    self.sent[dead_letter.reason] += 1
                else:
                    in_flight.append((dead_letter, await self._send(producer, dead_letter, num_partitions)))
                if len(in_flight) >= _MAX_IN_FLIGHT:
                    await self._settle(in_flight)
            await self._settle(in_flight)

    def _why_left(self, dead_letter: StoredDeadLetter) -> Left | None:
        topic, partition, _ = dead_letter.source
        if not dead_letter.reason or partition < 0:
            return Left.NO_LETTER
        if dead_letter.is_cut:
            return Left.CUT
        if dead_letter.reason == RejectReason.INFERENCE_FAILED:
            return Left.FOLDED_IN
        if topic != self.settings.plays_topic:
            return Left.OTHER_TOPIC
        if dead_letter.place in self._failed_again:
            return Left.FAILED_AGAIN
        return Left.TOO_OFTEN if dead_letter.num_redrives >= self.max_redrives else None

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
        return future

    def _target(self, dead_letter: StoredDeadLetter, num_partitions: int) -> int:
        """Where its key says; where there is none, or producers use a partitioner of their own, where it was."""
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
            f"dead_letter {dead_letter.place} was not taken ({error!r}), {self.sent.total()} before it were; "
            "it is safe to run this again"
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1
