"""Lets aiokafka clients wait for what a broker does not know yet, or no longer: its nodes, and topics.

aiokafka asserts that a client knows a node when it looks for a coordinator. For a moment after a restart of the broker it knows
none. The AssertionError would end a consumer's membership of its group for good, or fail a partition with "Did we not perform
bootstrap?". With this module the look-up fails like one that the broker cannot answer yet, which aiokafka retries.

While a topic does not exist, or no broker leads a partition, aiokafka requests metadata again as soon as an answer says so:
hundreds of times a second. With this module the answer reaches it after a pause, and one warning names the topic.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import GroupCoordinatorNotAvailableError

logger = logging.getLogger(__name__)

_PAUSE_S = 0.25
_look_up, _update = AIOKafkaClient.coordinator_lookup, AIOKafkaClient._metadata_update
#: The topics of each client that did not exist when it asked last.
_missing: WeakKeyDictionary[AIOKafkaClient, set[str]] = WeakKeyDictionary()


async def _look_up_once_known(client: AIOKafkaClient, kind: Any, key: str) -> Any:
    if client.get_random_node() is None:
        raise GroupCoordinatorNotAvailableError
    return await _look_up(client, kind, key)


async def _update_with_pause(client: AIOKafkaClient, metadata: ClusterMetadata, topics: Collection[str] | None) -> bool:
    is_updated = await _update(client, metadata, topics)
    if is_updated and topics:
        missing = {topic for topic in topics if not metadata.partitions_for_topic(topic)}
        for topic in sorted(missing - _missing.get(client, set())):
            logger.warning("topic %s does not exist; a client waits for it: intentrec topics creates it", topic)
        _missing[client] = missing
        if missing or any(not _has_leaders(metadata, topic) for topic in topics):
            await asyncio.sleep(_PAUSE_S)
    return is_updated


def _has_leaders(metadata: ClusterMetadata, topic: str) -> bool:
    partitions = metadata.partitions_for_topic(topic) or ()
    return all(metadata.leader_for_partition(TopicPartition(topic, number)) != -1 for number in partitions)


def wait_for_nodes() -> None:
    """Lets every client of this process wait. Idempotent."""
    AIOKafkaClient.coordinator_lookup = _look_up_once_known
    AIOKafkaClient._metadata_update = _update_with_pause
