"""Records with header names that are not UTF-8, as a producer in C or Go may send them; Python clients take text only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from stream.settings import Settings
from stream.wire.routing import key_hash


class OddName(str):
    """A header name whose bytes are not UTF-8."""

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe"


async def send_with_odd_header(settings: Settings, plays: Iterable[dict[str, Any]], topic: str = "") -> None:
    """Sends plays, each to its member's partition, of the plays topic unless ``topic`` names another."""
    async with AIOKafkaProducer(**settings.connection()) as producer:
        for play in plays:
            key = play["user_id"].encode()
            builder = producer.create_batch()
            builder._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 20)
            builder.append(timestamp=None, key=key, value=json.dumps(play).encode(), headers=[(OddName("x"), b"1")])
            builder.close()
            home = key_hash(key) % settings.num_partitions
            await (await producer.send_batch(builder, topic or settings.plays_topic, partition=home))
