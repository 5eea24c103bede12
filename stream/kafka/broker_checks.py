"""Checks of the broker: at start, whether it supports transactions and whether the topics are as they must be; while a process
runs, whether a fresh client can read what the process cannot.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest

from intentrec_core.errors import BrokerError, ConfigError, StateError
from stream.kafka.clients import close_consumer, reader
from stream.kafka.topics import count_partitions

if TYPE_CHECKING:
    from stream.settings import Settings

_BROKER_DEADLINE_S = 30.0
_LOOK_DEADLINE_S = 5.0
_TRY_AGAIN_S = 0.5
#: A look that fails, and the probe of the broker after it, must end well before the progress deadline.
_LOOKS_PER_DEADLINE = 5


async def uses_transactions(settings: Settings) -> bool:
    """Whether state and offsets are committed in transactions: as configured, or if the broker supports them (``auto``).

    Raises: BrokerError when the broker cannot be reached; ConfigError for exactly_once on a broker without transactions.
    """
    if settings.transactions != "auto":
        return settings.transactions == "on"
    return await supports_transactions(settings)


async def supports_transactions(settings: Settings) -> bool:
    """Whether the broker supports transactions, whatever the setting ``transactions`` says.

    Raises: as :func:`uses_transactions`.
    """
    client = AIOKafkaClient(**settings.connection(), client_id=f"{settings.app_id}-probe")
    try:
        async with asyncio.timeout(_BROKER_DEADLINE_S):
            await client.bootstrap()
            can = await _can_init_producer(client)
    except (TimeoutError, KafkaError) as error:
        raise BrokerError(f"no broker at {settings.broker} ({error!r}); start one: intentrec broker") from None
    finally:
        await client.close()
    if settings.delivery == "exactly_once" and not can:
        raise ConfigError(
            f"delivery=exactly_once: {settings.broker} has no transactions; use delivery=at_least_once, or Apache Kafka"
        )
    return can


async def _can_init_producer(client: AIOKafkaClient) -> bool:
    # The embedded broker always responds UNKNOWN_SERVER_ERROR. Kafka can fail transiently, so it gets three tries.
    for _ in range(3):
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000)
        response = await client.send(client.get_random_node(), request)
        if response.error_code == 0:
            return True
        if for_code(response.error_code).retriable:
            await asyncio.sleep(_TRY_AGAIN_S)
    return False


async def check_topics(settings: Settings) -> int:
    """Checks that all topics in use exist, and that plays and changelog have the same number of partitions. Returns it.

    Raises: StateError or BrokerError, with the remedy.
    """
    follows_items = settings.catalogue_source == "topic"
    topics = [topic for topic in settings.topics if follows_items or topic != settings.items_topic]
    try:
        counts = await count_partitions(settings, *topics)
    except KafkaError as error:
        raise BrokerError(f"the topics on {settings.broker} cannot be read: {error!r}") from error
    missing = [topic for topic in topics if topic not in counts]
    if missing:
        raise BrokerError(f"no topic {', '.join(missing)} on {settings.broker}; create the topics: intentrec topics")
    plays, changelog = counts[settings.plays_topic], counts[settings.changelog_topic]
    if plays != changelog:
        raise StateError(
            f"{settings.plays_topic} has {plays} partitions but {settings.changelog_topic} has {changelog}: members would not be "
            "where their plays are. Use another app_id, create its topics, and process the plays from the beginning"
        )
    return plays


def look_deadline_s(settings: Settings) -> float:
    """How long one comparison with the log ends may take."""
    return min(_LOOK_DEADLINE_S, settings.progress_deadline_s / _LOOKS_PER_DEADLINE)


async def can_read_end_offsets(settings: Settings, timeout_s: float, partitions: set[int]) -> bool:
    """Whether a fresh client can read the end offsets of partitions of the plays topic."""
    consumer = reader(settings, "probe")
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            await consumer.end_offsets([TopicPartition(settings.plays_topic, number) for number in partitions or {0}])
    except (TimeoutError, KafkaError):
        return False
    finally:
        await close_consumer(consumer)
    return True
