"""Reads partitions to their ends as of now, for commands that look at state, dead letters and plays, and for restores.

A reader belongs to no group and commits nothing, so reading changes nothing. On Apache Kafka the end is exact: a partition that
is being written to is read as of one moment, because a transaction is visible completely or not at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError
from stream.kafka.broker_checks import supports_transactions
from stream.kafka.clients import close_consumer, closed_on_failure, reader
from stream.kafka.topics import count_partitions
from stream.settings import Settings

#: Large fetches: reading a log to its end is bound by the round trip and by Python's loop over records.
FETCH_BYTES = 8 * 1024 * 1024
#: About 10 ms of work between two turns of the event loop, so that heartbeats and other partitions go on.
_MAX_CHUNK_RECORDS = 5000
_POLL_MS = 200
#: One fetch skips offsets without records (aborted transactions). A broker that takes longer than this is down.
_STALLED_S = 30.0

Records = Sequence[ConsumerRecord[Any, Any]]


async def read_until(
    consumer: AIOKafkaConsumer, source: TopicPartition, end: int, *, exact: bool, stalled_s: float = math.inf
) -> AsyncIterator[Records]:
    """The records of an assigned partition, from the consumer's position up to, but not including, ``end``, in chunks.

    The position decides where reading ends, not the last record: the last offset can belong to a control record, which
    consumers never receive. With ``exact`` false, ``end`` is a lower bound, and reading goes on until a fetch is empty: the
    embedded broker counts its last batch as one record.

    Raises: KafkaError when the broker fails; BrokerError when the position does not move for ``stalled_s``.
    """
    position, moved_s = -1, time.monotonic()
    while True:
        fetched = await consumer.getmany(source, timeout_ms=_POLL_MS, max_records=_MAX_CHUNK_RECORDS)
        records = fetched.get(source, ())
        reached = await consumer.position(source)
        if chunk := [record for record in records if record.offset < end or not exact]:
            yield chunk
        if reached >= end and (exact or not records):
            return
        if reached > position:
            position, moved_s = reached, time.monotonic()
        elif time.monotonic() - moved_s > stalled_s:
            raise BrokerError(
                f"{source.topic}, partition {source.partition}: no record from offset {position} on arrived within "
                f"{stalled_s:.0f} s; the log ends at {end}"
            )


class TopicReader:
    """An async context manager around one consumer; it reads partitions one after another.

    ``exact_ends``: whether the broker reports the exact end of a partition. The embedded broker reports only a lower bound.

    Raises: BrokerError on entering, when the broker cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exact_ends = False

    async def __aenter__(self) -> Self:
        # Probed, whatever the transactions setting says: only a broker with transactions reports exact ends.
        self.exact_ends = await supports_transactions(self.settings)
        self._consumer = reader(self.settings, "reader", max_partition_fetch_bytes=FETCH_BYTES)
        try:
            async with closed_on_failure(self._consumer):
                await self._consumer.start()
        except KafkaError as error:
            raise self._unreadable(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_consumer(self._consumer)

    async def num_partitions(self, topic: str) -> int:
        """The number of partitions of a topic.

        Raises: BrokerError when the topic does not exist, with the remedy.
        """
        try:
            counts = await count_partitions(self.settings, topic)
        except KafkaError as error:
            raise self._unreadable(error) from error
        if topic not in counts:
            raise BrokerError(
                f"no topic {topic} on {self.settings.broker}; if its name is right, create it: intentrec topics"
            )
        return counts[topic]

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset of the partition, and the offset after its last record (on the embedded broker, a lower bound)."""
        source = TopicPartition(topic, partition)
        try:
            beginning = await self._consumer.beginning_offsets([source])
            end = await self._consumer.end_offsets([source])
        except KafkaError as error:
            raise self._unreadable(error) from error
        return int(beginning[source]), int(end[source])

    async def read(
        self, topic: str, partition: int, *, first: int = 0, end: int | None = None
    ) -> AsyncIterator[Records]:
        """The records from offset ``first`` up to, but not including, ``end``, in chunks. Default ``end``: the log end as of now.

        Raises: BrokerError when the broker fails, or the partition does not reach ``end``.
        """
        source = TopicPartition(topic, partition)
        beginning, log_end = await self.bounds(topic, partition)
        stop = log_end if end is None else end
        exact = end is not None or self.exact_ends
        position = max(first, beginning)
        if position >= stop and exact:
            return
        self._consumer.assign([source])
        self._consumer.seek(source, position)
        try:
            async for records in read_until(self._consumer, source, stop, exact=exact, stalled_s=_STALLED_S):
                yield records
        except KafkaError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: KafkaError) -> BrokerError:
        return BrokerError(f"the broker {self.settings.broker} cannot be read: {error!r}; is it up?")
