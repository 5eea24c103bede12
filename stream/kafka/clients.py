"""Kafka clients: the options that all consumers share, a consumer that reads a log from its beginning, and closing clients."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from intentrec_core.errors import BrokerError
from stream.kafka.header_names import read_any_header_name
from stream.kafka.known_nodes import wait_for_nodes

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: How long a fetch waits for a record. At the end of a log, a reader waits this long once.
_POLL_MS = 200
#: Requests in flight are not worth waiting for: a broker that is down must not delay a rebalance.
CLOSE_DEADLINE_S = 2.0


def consumer_options(settings: Settings, name: str) -> dict[str, Any]:
    """The options of every AIOKafkaConsumer of this project: connection, client id, committed records only, no auto-commit.

    ``name`` is appended to the app id in the client id. As a side effect, consumers of this process accept any header name, and
    wait for a broker that lists no node yet.
    """
    read_any_header_name()
    wait_for_nodes()
    return {
        **settings.connection(),
        "client_id": f"{settings.app_id}-{name}",
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
    }


def reader(settings: Settings, name: str, **options: Any) -> AIOKafkaConsumer:
    """A consumer outside any group that reads from the beginning. It is not started. ``options`` are those of aiokafka."""
    return AIOKafkaConsumer(
        **consumer_options(settings, name),
        group_id=None,
        **{"auto_offset_reset": "earliest", "fetch_max_wait_ms": _POLL_MS, **options},
    )


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer within CLOSE_DEADLINE_S. Raises only if its caller is cancelled.

    aiokafka's own ``stop()`` can end with the CancelledError of a fetch that it cancelled itself. Once this was mistaken for a
    cancellation of the caller, and a partition was left without a task and never reopened.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    stopping.add_done_callback(mark_retrieved)
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_S)
    if not done or stopping.cancelled() or stopping.exception() is not None:
        logger.debug("a consumer did not stop cleanly: %r", stopping)
        stopping.cancel()
        await consumer._client.close()


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Stops a producer within CLOSE_DEADLINE_S. Raises only if its caller is cancelled."""
    stopping = asyncio.ensure_future(producer.stop())
    stopping.add_done_callback(mark_retrieved)
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_S)
    if not done:
        # stop() waits for batches that cannot be delivered. Failing these batches lets it finish in the background.
        producer._message_accumulator.fail_all(BrokerError("the producer was closed"))
    elif stopping.cancelled() or stopping.exception() is not None:
        logger.debug("a producer did not stop cleanly: %r", stopping)


def mark_retrieved(future: asyncio.Future[Any]) -> None:
    """A done callback for futures that may be dropped: asyncio must not report their exception as never retrieved.

    Awaiting such a future raises as always.
    """
    if not future.cancelled():
        future.exception()
