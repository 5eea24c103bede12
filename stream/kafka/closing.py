"""Letting go of a consumer or a producer, whatever state it is in."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from intentrec_core.errors import BrokerError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

logger = logging.getLogger(__name__)

#: Nothing that is still in flight is worth waiting for; a broker that is gone must not hold up a rebalance.
CLOSE_DEADLINE_S = 2.0


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer within CLOSE_DEADLINE_S; never raises but when its caller is cancelled.

    aiokafka's own ``stop()`` can end with the CancelledError of a fetch that it cancelled itself. Taken for a cancellation of
    the caller, that once left a partition that nobody served and nobody opened again.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_S)
    if not done or stopping.cancelled() or stopping.exception() is not None:
        logger.debug("a consumer did not stop in good order: %r", stopping)
        stopping.cancel()
        await consumer._client.close()


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Stops a producer within CLOSE_DEADLINE_S; never raises but when its caller is cancelled."""
    stopping = asyncio.ensure_future(producer.stop())
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_S)
    if not done:
        # stop() waits for batches that cannot be delivered; failing them lets it end by itself, in the background.
        producer._message_accumulator.fail_all(BrokerError("the producer was closed"))
    elif stopping.cancelled() or stopping.exception() is not None:
        logger.debug("a producer did not stop in good order: %r", stopping)
