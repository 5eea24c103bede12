"""A producer for outputs that recovers after the broker refuses a batch, by replacing the underlying producer.

aiokafka advances its sequence numbers even for a refused batch. After that, the broker refuses everything that this idempotent
producer sends to the partition as out of order. Therefore the next batch after a failure is sent by a new producer.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from stream.kafka.clients import close_producer

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import AIOKafkaProducer
    from aiokafka.producer.message_accumulator import BatchBuilder

logger = logging.getLogger(__name__)


class OutputsProducer:
    """Sends batches like an AIOKafkaProducer. ``make`` creates a producer that is not started."""

    def __init__(self, make: Callable[[], AIOKafkaProducer]) -> None:
        self._make = make
        self._producer = make()
        self._failed = False
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connects. Raises: KafkaError when the broker cannot be reached."""
        await self._producer.start()

    async def stop(self) -> None:
        """Flushes and closes within seconds. Never raises."""
        await asyncio.gather(close_producer(self._producer), *self._closing)

    async def partitions_for(self, topic: str) -> set[int]:
        """See AIOKafkaProducer."""
        return set(await self._producer.partitions_for(topic) or ())

    def create_batch(self) -> BatchBuilder:
        """See AIOKafkaProducer."""
        return self._producer.create_batch()

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]:
        """See AIOKafkaProducer. Raises: KafkaError, also if a new producer is needed and cannot start."""
        async with self._renewing:
            if self._failed:
                await self._renew()
            producer = self._producer
        acknowledged = await producer.send_batch(batch, topic, partition=partition)
        acknowledged.add_done_callback(partial(self._settled, producer))
        return acknowledged

    def _settled(self, producer: AIOKafkaProducer, acknowledged: asyncio.Future[Any]) -> None:
        if not acknowledged.cancelled() and acknowledged.exception() is not None and producer is self._producer:
            self._failed = True

    async def _renew(self) -> None:
        renewed = self._make()
        try:
            await renewed.start()
        except BaseException:  # a cancellation too: what a producer has begun must be closed
            await close_producer(renewed)
            raise
        logger.warning("a batch of outputs failed; continuing with a new producer")
        # The old producer gets time to deliver its batches in flight for other partitions.
        closing = asyncio.create_task(close_producer(self._producer), name="close a producer of outputs")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._producer, self._failed = renewed, False
