"""Reads the id of a topic, which tells a topic from one that was deleted and made anew under the same name.

aiokafka's own metadata requests end before version 10, the first with ids. Apache Kafka has had them since 2.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

if TYPE_CHECKING:
    from io import BytesIO

    from aiokafka.client import AIOKafkaClient

_NO_ID = bytes(16)


async def read_topic_id(client: AIOKafkaClient, topic: str) -> bytes | None:
    """The 16 bytes that identify a topic of one partition as long as it exists; None where the broker has no ids.

    Asked is the broker that leads the partition: others may not know yet that the topic was made anew.

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
        return None
    ((error_code, _, topic_id, *_),) = response.topics
    if error_code:
        raise for_code(error_code)
    return None if topic_id == _NO_ID else topic_id


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
