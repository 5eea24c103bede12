"""Sends an erasure request for a member, and waits until the workers have committed it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, ConfigError
from intentrec_core.limits import MAX_ID_BYTES
from stream.kafka.clients import start_producer
from stream.kafka.topics import count_partitions
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from stream.wire.routing import home_partition

if TYPE_CHECKING:
    from stream.settings import Settings

_LOOK_EVERY_S = 0.5


async def send_forget(settings: Settings, user_id: str) -> dict[int, int]:
    """Sends the erasure request and returns its offset per partition.

    It goes to the member's partition, or to all partitions with plays_partitioner=any.

    Raises: ConfigError for an invalid user id; BrokerError when the broker does not accept the request.
    """
    key = user_id.encode(errors="surrogatepass")
    if not 1 <= len(key) <= MAX_ID_BYTES:
        raise ConfigError(f"user id of {len(key)} bytes; allowed: 1 to {MAX_ID_BYTES}")
    topic = settings.plays_topic
    try:
        counts = await count_partitions(settings, topic)
    except KafkaError as error:
        raise BrokerError(f"the broker {settings.broker} cannot be reached: {error!r}; is it up?") from error
    if topic not in counts:
        raise BrokerError(f"no topic {topic} on {settings.broker}; create the topics: intentrec topics")
    murmur2 = settings.plays_partitioner == "murmur2"
    targets = [home_partition(key, counts[topic])] if murmur2 else list(range(counts[topic]))
    producer = await start_producer(settings)
    try:
        return {
            partition: (
                await producer.send_and_wait(
                    topic, None, key=key, partition=partition, headers=[(CONTROL_HEADER, FORGET)]
                )
            ).offset
            for partition in targets
        }
    except KafkaError as error:
        raise BrokerError(
            f"the broker {settings.broker} refused the erasure request: {error!r}; send it again"
        ) from error
    finally:
        await producer.stop()


async def is_followed(settings: Settings, sent: dict[int, int], wait_s: float) -> bool:
    """Whether the workers commit past the request within ``wait_s``; state and changelog no longer have the member then.

    Raises: BrokerError when the offsets of the group cannot be read.
    """
    deadline_s = time.monotonic() + wait_s
    requests = {TopicPartition(settings.plays_topic, partition): offset for partition, offset in sent.items()}
    admin = AIOKafkaAdminClient(**settings.connection())
    try:
        await admin.start()
        while True:
            committed = await _committed(admin, settings.app_id, requests)
            if all(source in committed and committed[source].offset > offset for source, offset in requests.items()):
                return True
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
    except KafkaError as error:
        raise BrokerError(f"the group's offsets on {settings.broker} cannot be read: {error!r}") from error
    finally:
        await admin.close()


async def _committed(admin: AIOKafkaAdminClient, group: str, sources: Iterable[TopicPartition]) -> dict[Any, Any]:
    """The group's offsets; empty while the broker has no coordinator for it, as before the first group exists."""
    try:
        return dict(await admin.list_consumer_group_offsets(group, partitions=list(sources)))
    except KafkaError as error:
        if not error.retriable:
            raise
        return {}
