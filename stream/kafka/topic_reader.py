"""Reads a topic's partitions to their ends as of now: for commands that look at state, dead letters and plays.

It belongs to no group and commits nothing, so that a look changes nothing. On Apache Kafka the end is exact, and a partition
that is written to meanwhile gives a state that was there at one moment: transactions are whole or not seen.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError
from stream.kafka.broker_checks import uses_transactions
from stream.kafka.clients import close_consumer, reader
from stream.kafka.topics import count_partitions
from stream.settings import Settings

_FETCH_BYTES = 8 * 1024 * 1024
_RECORDS_A_TURN = 5000
_POLL_MS = 200
#: Offsets without a record (aborted transactions) are passed in one fetch; a broker that takes longer is gone.
_STALLED_S = 30.0


class TopicReader:
    """An async context manager around one consumer; partitions are read one after another.

    ``exact_ends``: whether the broker says where a partition ends; the embedded one says no more than a lower bound.

    Raises: BrokerError on entering, when the broker cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exact_ends = False

    async def __aenter__(self) -> Self:
        # Asked of the broker, whatever the workers were told to use: only one with transactions counts its ends right.
        self.exact_ends = await uses_transactions(self.settings.model_copy(update={"transactions": "auto"}))
        self._consumer = reader(self.settings, "reader", max_partition_fetch_bytes=_FETCH_BYTES)
        try:
            await self._consumer.start()
        except KafkaError as error:
            await close_consumer(self._consumer)
            raise self._gone(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_consumer(self._consumer)

    async def num_partitions(self, topic: str) -> int:
        """Raises: BrokerError when there is no such topic, with the remedy."""
        try:
            counts = await count_partitions(self.settings, topic)
        except KafkaError as error:
            raise self._gone(error) from error
        if topic not in counts:
            raise BrokerError(
                f"no topic {topic} on {self.settings.broker}; if its name is right, create it: intentrec topics"
            )
        return counts[topic]

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset the partition holds, and the one behind its last (on the embedded broker: at least that)."""
        source = TopicPartition(topic, partition)
        try:
            beginning = await self._consumer.beginning_offsets([source])
            end = await self._consumer.end_offsets([source])
        except KafkaError as error:
            raise self._gone(error) from error
        return int(beginning[source]), int(end[source])

    async def read(
        self, topic: str, partition: int, *, first: int = 0, end: int | None = None
    ) -> AsyncIterator[Sequence[ConsumerRecord[Any, Any]]]:
        """The records from offset ``first`` to before ``end``, in portions; without ``end``, those that are there now.

        Raises: BrokerError when the broker fails, or the partition does not reach ``end``.
        """
        source = TopicPartition(topic, partition)
        beginning, now = await self.bounds(topic, partition)
        stop = now if end is None else end
        # The embedded broker's end is a lower bound: there it is over when nothing comes.
        exact = end is not None or self.exact_ends
        position = max(first, beginning)
        if position >= stop and exact:
            return
        consumer, moved_s = self._consumer, time.monotonic()
        consumer.assign([source])
        consumer.seek(source, position)
        while True:
            try:
                fetched = (await consumer.getmany(source, timeout_ms=_POLL_MS, max_records=_RECORDS_A_TURN)).get(source)
                reached = await consumer.position(source)
            except KafkaError as error:
                raise self._gone(error) from error
            if records := [record for record in fetched or () if record.offset < stop or not exact]:
                yield records
            if reached >= stop and (exact or not fetched):
                return
            if reached > position:
                position, moved_s = reached, time.monotonic()
            elif time.monotonic() - moved_s > _STALLED_S:
                raise BrokerError(
                    f"{topic}, partition {partition}: nothing behind offset {position} came, {stop} is the end"
                )

    def _gone(self, error: KafkaError) -> BrokerError:
        return BrokerError(f"the broker {self.settings.broker} cannot be read: {error!r}; is it up?")
