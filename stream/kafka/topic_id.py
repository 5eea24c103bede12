"""What is true of a topic now: its id, which tells it from one that was deleted and made anew under its name, and where it ends.

aiokafka's own metadata requests end before version 10, the first with ids. Apache Kafka has had them since 2.8.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

if TYPE_CHECKING:
    from io import BytesIO

    from aiokafka.client import AIOKafkaClient

_NO_ID = bytes(16)
_READ_UNCOMMITTED, _LATEST = 0, -1
_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class TopicNow:
    """``topic_id``: the 16 bytes that identify a topic as long as it exists; None where the broker has no ids."""

    topic_id: bytes | None
    num_partitions: int


async def read_topic(client: AIOKafkaClient, topic: str) -> TopicNow:
    """The topic as it is now. ``client`` follows it, or all topics.

    Asked is the broker that leads partition 0: others may not know yet that the topic was made anew.

    Raises: KafkaError when the broker cannot be reached, or there is no such topic.
    """
    node = client.cluster.leader_for_partition(TopicPartition(topic, 0))
    if node in (None, -1):  # not known now
        node = client.get_random_node()
    if node is None:
        raise GroupCoordinatorNotAvailableError
    try:
        response = await client.send(node, _MetadataRequest(topic))
    except NotImplementedError:
        # aiokafka raises this, before it sends anything, where the broker does not know the request's version: such a broker has
        # no ids, and the topic is followed by its offsets alone.
        if not await client.force_metadata_update():
            raise KafkaConnectionError from None
        partitions = client.cluster.partitions_for_topic(topic)
        if not partitions:
            raise UnknownTopicOrPartitionError from None
        return TopicNow(None, len(partitions))
    ((error_code, _, topic_id, _, partitions, *_),) = response.topics
    if error_code:
        raise for_code(error_code)
    return TopicNow(None if topic_id == _NO_ID else topic_id, len(partitions))


async def read_log_end(client: AIOKafkaClient, source: TopicPartition) -> int:
    """The offset after the last record written, whether or not its transaction has ended.

    Waits while no broker leads the partition.
    A consumer of committed records calls the first record of the oldest open transaction the end. On the embedded broker it is a
    lower bound.

    Raises: KafkaError when the broker cannot be reached, or there is no such topic.
    """
    request = OffsetRequest(-1, _READ_UNCOMMITTED, [(source.topic, [(source.partition, _LATEST)])])
    while True:
        node = client.cluster.leader_for_partition(source)
        if node not in (None, -1):
            response = await client.send(node, request)
            ((_, ((_, error_code, _, end),)),) = response.topics
            if not error_code:
                return int(end)
            error = for_code(error_code)
            if error is UnknownTopicOrPartitionError or not error.retriable:
                raise error
        await client.force_metadata_update()
        await asyncio.sleep(_RETRY_S)


class _Uuid(AbstractType[bytes]):
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_TEXT, _TAGS = CompactString("utf-8"), ("tags", TaggedFields)


class _MetadataResponse(Response):
    API_KEY, API_VERSION = 3, 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        _TAGS,
    )


class _MetadataRequestV10(RequestStruct):
    API_KEY, API_VERSION, FLEXIBLE_VERSION = 3, 10, True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _MetadataRequest(Request[_MetadataRequestV10]):
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequestV10]) -> _MetadataRequestV10:
        return request_struct_class([(_NO_ID, self._topic, {})], False, False, False, {})
