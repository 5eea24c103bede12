"""Writes the checkpoints of one partition: state and source offset together, or neither.

    checkpoint = every play of the partition up to an offset: records of the members it changed, the partition marker, the offset

    with transactions   one transaction per checkpoint. The transactional id names the SOURCE partition, so that starting the
                        producer fences the partition's previous owner
    embedded broker     first the changelog is acknowledged, then the offset is committed: a crash in between repeats plays, and
                        loses none

A writer that has failed is not used again: the partition is reopened with a new writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from intentrec_core.errors import BrokerError, Fenced
from intentrec_core.history.changelog_codec import MARKER_KEY, Marker
from stream.kafka.clients import close_producer, mark_retrieved
from stream.kafka.known_nodes import wait_for_nodes
from stream.kafka.publisher import BATCH_BYTES
from stream.wire.records import OutputRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiokafka.producer.message_accumulator import BatchBuilder

    from stream.kafka.outputs_producer import OutputsProducer
    from stream.kafka.publisher import Publisher
    from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A partition's progress up to ``next_offset``.

    ``changes``: the last value of every key that changed since the previous checkpoint. ``outputs``: only where they are part of
    the transaction (delivery exactly_once).
    """

    next_offset: int
    changes: Mapping[bytes, bytes | None]
    outputs: Sequence[OutputRecord] = field(default=())


class ChangelogWriter(Protocol):
    """Writes the checkpoints of one source partition, for one partition task."""

    async def open(self) -> None:
        """Becomes the only writer of the partition."""
        ...

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Makes a checkpoint durable, state and offset together.

        Raises: Fenced when another worker owns the partition; KafkaError or BrokerError when the commit failed.
        """
        ...

    async def close(self) -> None:
        """Releases the connection; never raises."""
        ...


class TransactionalWriter:
    """Commits each checkpoint in one transaction. Its transactional id is the partition's only fence."""

    def __init__(
        self,
        settings: Settings,
        partition: int,
        marker: Callable[[int], Marker],
        publisher: Publisher | None,
        batch_bytes: int = BATCH_BYTES,
        make_producer: Callable[..., AIOKafkaProducer] | None = None,
    ) -> None:
        self._settings, self._batch_bytes = settings, batch_bytes
        self._make_producer = make_producer or AIOKafkaProducer
        self._partition = partition
        self._marker = marker
        self._publisher = publisher
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> None:
        """Raises the producer epoch: the previous owner can no longer commit, and its open transaction is aborted."""
        settings = self._settings
        wait_for_nodes()
        self._producer = producer = self._make_producer(
            **settings.connection(),
            client_id=f"{settings.app_id}-changelog-{self._partition}",
            transactional_id=transactional_id(settings, self._partition),
            transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
            request_timeout_ms=int(settings.transaction_timeout_s * 1000),
            max_batch_size=self._batch_bytes,
        )
        await producer.start()

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ChangelogWriter. Waits no longer than the transaction's timeout: the broker aborts it at that time."""
        deadline = asyncio.timeout(self._settings.transaction_timeout_s)
        try:
            async with deadline:
                await self._commit(checkpoint)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise Fenced(f"partition {self._partition} has a newer owner ({error!r})") from error
        except TimeoutError:
            if not deadline.expired():  # a timeout within the client
                raise
            raise BrokerError(
                f"the transaction of partition {self._partition} did not end within its timeout of "
                f"{self._settings.transaction_timeout_s:.0f} s: the broker aborts it, and the plays are replayed"
            ) from None

    async def _commit(self, checkpoint: Checkpoint) -> None:
        producer, settings = self._started(), self._settings
        await producer.begin_transaction()
        acknowledged = await _send(producer, settings.changelog_topic, self._partition, checkpoint, self._marker)
        sent = None
        if checkpoint.outputs and self._publisher:
            sent = await self._publisher.send_in_transaction(producer, checkpoint.outputs)
            acknowledged += sent.acknowledged
        # A failed batch does not make aiokafka's commit fail, so its error has to be raised here.
        await asyncio.gather(*acknowledged)
        source = TopicPartition(settings.plays_topic, self._partition)
        await producer.send_offsets_to_transaction({source: checkpoint.next_offset}, settings.app_id)
        await producer.commit_transaction()
        if sent and self._publisher:
            self._publisher.committed(sent)

    async def close(self) -> None:
        """See ChangelogWriter. An open transaction is aborted when the next owner starts, or by its timeout."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BrokerError(f"the changelog writer of partition {self._partition} is closed")
        return self._producer


class PlainWriter:
    """For a broker without transactions: the changelog is acknowledged, then the offset committed. It fences no other worker."""

    def __init__(
        self,
        settings: Settings,
        partition: int,
        marker: Callable[[int], Marker],
        producer: OutputsProducer,
        commit_offset: Callable[[int, int], Awaitable[bool]],
    ) -> None:
        self._settings = settings
        self._partition = partition
        self._marker = marker
        self._producer = producer
        self._commit_offset = commit_offset

    async def open(self) -> None:
        """Does nothing: the producer is shared, and already started."""

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ChangelogWriter."""
        topic, partition = self._settings.changelog_topic, self._partition
        await asyncio.gather(*await _send(self._producer, topic, partition, checkpoint, self._marker))
        if not await self._commit_offset(partition, checkpoint.next_offset):
            raise BrokerError(f"the offset of partition {partition} was not committed: it is no longer assigned here")

    async def close(self) -> None:
        """Does nothing."""


def transactional_id(settings: Settings, partition: int) -> str:
    """Names the source partition, so that a worker that opens it fences the previous owner."""
    return f"{settings.app_id}-{settings.plays_topic}-{partition}"


async def _send(
    producer: AIOKafkaProducer | OutputsProducer,
    topic: str,
    partition: int,
    checkpoint: Checkpoint,
    marker: Callable[[int], Marker],
) -> list[asyncio.Future[object]]:
    records: Iterable[tuple[bytes, bytes | None]] = [
        *checkpoint.changes.items(),
        (MARKER_KEY, marker(checkpoint.next_offset).encode()),
    ]
    acknowledged: list[asyncio.Future[object]] = []

    async def send(batch: BatchBuilder) -> None:
        sent = await producer.send_batch(batch, topic, partition=partition)
        sent.add_done_callback(mark_retrieved)  # if a later send raises, nothing awaits this one
        acknowledged.append(sent)

    builder = producer.create_batch()
    for key, value in records:
        if builder.append(timestamp=None, key=key, value=value) is None:
            await send(builder)
            builder = producer.create_batch()
            builder.append(timestamp=None, key=key, value=value)
    builder.close()
    await send(builder)
    return acknowledged
