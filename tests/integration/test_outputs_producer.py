"""The producer of outputs on Apache Kafka: a batch that is refused does not poison those after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTimestampError, KafkaError

from stream.kafka.outputs_producer import OutputsProducer
from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.verdict import read_all

pytestmark = pytest.mark.kafka

WAY_AHEAD_S = 2 * 3600.0


async def _send(producer: OutputsProducer | AIOKafkaProducer, topic: str, value: bytes, ahead_s: float = 0.0) -> None:
    batch = producer.create_batch()
    batch.append(timestamp=int((time.time() + ahead_s) * 1000), key=None, value=value)
    batch.close()
    await (await producer.send_batch(batch, topic, partition=0))


def test_after_a_refused_batch_it_goes_on(kafka_broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(kafka_broker)
    settings, topic = (
        rig.settings,
        rig.settings.plays_topic,
    )  # stamped by its producers, as output topics of others may be

    def make() -> AIOKafkaProducer:
        return AIOKafkaProducer(**settings.connection(), enable_idempotence=True)

    async def scenario(start: Callable[[], OutputsProducer | AIOKafkaProducer]) -> None:
        producer = start()
        await producer.start()
        try:
            await _send(producer, topic, b"before")
            with pytest.raises(InvalidTimestampError):
                await _send(producer, topic, b"refused", WAY_AHEAD_S)
            async with asyncio.timeout(30):
                await _send(producer, topic, b"after")
        finally:
            await producer.stop()

    asyncio.run(scenario(lambda: OutputsProducer(make)))
    assert [record.value for record in read_all(settings, topic)] == [b"before", b"after"]
    with pytest.raises((KafkaError, TimeoutError)):  # if aiokafka mends this, ours is not needed any more
        asyncio.run(scenario(make))
