"""State and source offset of one partition, written together or not at all.

    checkpoint = every play of the partition up to an offset: records of the members it changed, the partition marker, the offset

    with transactions   one transaction of a producer whose id names the SOURCE partition; its start fences the owner before
    embedded broker     changelog acknowledged, then the offset committed: a crash between repeats plays, loses none

A writer that has failed is never used again: its partition is opened anew with a new writer.
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
from stream.kafka.closing import close_producer
from stream.kafka.publisher import BATCH_BYTES
from stream.wire.records import OutputRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from stream.kafka.outputs_producer import OutputsProducer
    from stream.kafka.publisher import Publisher
    from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A partition's progress up to ``next_offset``: what changed since the checkpoint before, last value of a key.

    ``outputs`` only where they go into the transaction (delivery exactly_once).
    """

    next_offset: int
    changes: Mapping[bytes, bytes | None]
    outputs: Sequence[OutputRecord] = field(default=())


class ChangelogWriter(Protocol):
    """Writes the checkpoints of one source partition, for one task of it."""

    async def open(self) -> None:
        """Becomes the partition's only writer."""
        ...

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Makes a checkpoint durable, state and offset together.

        Raises: Fenced when another worker owns the partition; KafkaError or BrokerError when it failed.
        """
        ...

    async def close(self) -> None:
        """Lets go of the connection; never raises."""
        ...


class TransactionalWriter:
    """One transaction a checkpoint. The transactional id is the partition's fence, and the only one."""

    def __init__(
        self, settings: Settings, partition: int, marker: Callable[[int], Marker], publisher: Publisher | None
    ) -> None:
        self._settings = settings
        self._partition = partition
        self._marker = marker
        self._publisher = publisher
        self._producer: AIOKafkaProducer | None = None

    async def open(self) -> None:
        """Bumps the epoch: from here on the owner before cannot commit, and what it left open is aborted."""
        settings = self._settings
        self._producer = producer = AIOKafkaProducer(
            **settings.connection(),
            client_id=f"{settings.app_id}-changelog-{self._partition}",
            transactional_id=transactional_id(settings, self._partition),
            transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
            request_timeout_ms=int(settings.transaction_timeout_s * 1000),
            max_batch_size=BATCH_BYTES,
        )
        await producer.start()

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ChangelogWriter; past the transaction's own timeout the broker has aborted it, so waiting on is no use."""
        deadline = asyncio.timeout(self._settings.transaction_timeout_s)
        try:
            async with deadline:
                await self._commit(checkpoint)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise Fenced(f"partition {self._partition} has a newer owner ({error!r})") from error
        except TimeoutError:
            if not deadline.expired():  # a connection's own
                raise
            raise BrokerError(f"the transaction of partition {self._partition} took too long") from None

    async def _commit(self, checkpoint: Checkpoint) -> None:
        producer, settings = self._started(), self._settings
        await producer.begin_transaction()
        acknowledged = await _send(producer, settings.changelog_topic, self._partition, checkpoint, self._marker)
        sent = None
        if checkpoint.outputs and self._publisher:
            sent = await self._publisher.send_in_transaction(producer, checkpoint.outputs)
            acknowledged += sent.acknowledged
        # A batch that failed does not fail aiokafka's commit: it has to be seen here.
        await asyncio.gather(*acknowledged)
        source = TopicPartition(settings.plays_topic, self._partition)
        await producer.send_offsets_to_transaction({source: checkpoint.next_offset}, settings.app_id)
        await producer.commit_transaction()
        if sent and self._publisher:
            self._publisher.committed(sent)

    async def close(self) -> None:
        """See ChangelogWriter. An open transaction stays open: the next owner's start, or its timeout, aborts it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer)

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BrokerError(f"the changelog writer of partition {self._partition} is closed")
        return self._producer


class PlainWriter:
    """Changelog acknowledged, then the offset committed: for a broker without transactions. It fences nobody."""

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
        """Nothing to do: the producer is shared and started."""

    async def commit(self, checkpoint: Checkpoint) -> None:
        """See ChangelogWriter."""
        topic, partition = self._settings.changelog_topic, self._partition
        await asyncio.gather(*await _send(self._producer, topic, partition, checkpoint, self._marker))
        if not await self._commit_offset(partition, checkpoint.next_offset):
            raise BrokerError(f"the offset of partition {partition} was not committed: it is no longer ours")

    async def close(self) -> None:
        """Nothing to do."""


def transactional_id(settings: Settings, partition: int) -> str:
    """Names the source partition, so that whoever opens it fences whoever had it."""
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
    acknowledged = []
    builder = producer.create_batch()
    for key, value in records:
        if builder.append(timestamp=None, key=key, value=value) is None:
            acknowledged.append(await producer.send_batch(builder, topic, partition=partition))
            builder = producer.create_batch()
            builder.append(timestamp=None, key=key, value=value)
    builder.close()
    acknowledged.append(await producer.send_batch(builder, topic, partition=partition))
    return acknowledged
