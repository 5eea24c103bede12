"""Kafka clients: the options that all consumers share, a consumer that reads a log from its beginning, a producer, and closing
clients. Clients of a process that imports this leave no connection open where their start is cancelled, and its producers fail a
batch that waits to be sent again without a KeyError.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError, UnsupportedVersionError

from intentrec_core.errors import BrokerError
from stream.kafka.cancelled_starts import close_cancelled_starts
from stream.kafka.header_names import read_any_header_name
from stream.kafka.known_nodes import wait_for_nodes
from stream.kafka.requeued_batches import keep_requeued_batches
from stream.kafka.topics import MAX_PLAY_RECORD_BYTES

if TYPE_CHECKING:
    from aiokafka.client import AIOKafkaClient

    from stream.settings import Settings

close_cancelled_starts()
keep_requeued_batches()
logger = logging.getLogger(__name__)

#: How long a fetch waits for a record. At the end of a log, a reader waits this long once.
_POLL_MS = 200
#: What a client has to stop in, and again to close its connections where it does not. Requests in flight are not worth waiting
#: for: a broker that is down must not delay a rebalance.
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


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    """A started producer with acks=all, idempotent if the broker supports it (the embedded broker does not).

    Raises: BrokerError when the broker cannot be reached.
    """
    for idempotent in {"auto": (True, False), "on": (True,), "off": (False,)}[settings.transactions]:
        producer = AIOKafkaProducer(
            **settings.connection(),
            enable_idempotence=idempotent,
            acks="all",
            linger_ms=2,
            compression_type=None,
            max_request_size=MAX_PLAY_RECORD_BYTES,
        )
        try:
            await producer.start()
        except (UnsupportedVersionError, UnknownError):  # the response of the embedded broker to InitProducerId
            await producer.stop()
        except KafkaError as error:
            await producer.stop()
            raise BrokerError(f"the broker {settings.broker} cannot be reached: {error!r}; is it up?") from error
        except BaseException:  # a cancellation too: what was begun must be closed
            await close_producer(producer)
            raise
        else:
            return producer
    raise BrokerError(
        f"the broker {settings.broker} does not support idempotent producers; set transactions to auto or off"
    )


@contextlib.asynccontextmanager
async def closed_on_failure(consumer: AIOKafkaConsumer) -> AsyncIterator[None]:
    """Around what a consumer begins with: it is closed where that fails or is cancelled."""
    try:
        yield
    except BaseException:  # a cancellation too: what was begun must be closed
        await close_consumer(consumer)
        raise


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stops a consumer within twice CLOSE_DEADLINE_S. Raises only if its caller is cancelled.

    aiokafka's own ``stop()`` can end with the CancelledError of a fetch that it cancelled itself. Once this was mistaken for a
    cancellation of the caller, and a partition was left without a task and never reopened.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    stopping.add_done_callback(mark_retrieved)
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_S)
    if not done or stopping.cancelled() or stopping.exception() is not None:
        logger.debug("a consumer did not stop cleanly: %r", stopping)
        stopping.cancel()
        await _close_connections(consumer._client)


async def close_producer(producer: AIOKafkaProducer) -> None:
    """Stops a producer within twice CLOSE_DEADLINE_S. Raises only if its caller is cancelled."""
    stopping = asyncio.ensure_future(producer.stop())
    stopping.add_done_callback(mark_retrieved)
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_S)
    if not done:
        # stop() waits for batches that cannot be delivered. Failing these batches lets it finish in the background.
        producer._message_accumulator.fail_all(BrokerError("the producer was closed"))
    if not done or stopping.cancelled() or stopping.exception() is not None:
        logger.debug("a producer did not stop cleanly: %r", stopping)
        await _close_connections(producer.client)


async def _close_connections(client: AIOKafkaClient) -> None:
    """Closes every connection of a client. One with data that its broker does not take is not waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_DEADLINE_S):
            await client.close()


def mark_retrieved(future: asyncio.Future[Any]) -> None:
    """A done callback for futures that may be dropped: asyncio must not report their exception as never retrieved.

    Awaiting such a future raises as always.
    """
    if not future.cancelled():
        future.exception()
