"""Clients wait for nodes and topics that are not there: without failing an assertion, and without asking without end."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import GroupCoordinatorNotAvailableError

from stream.kafka import known_nodes
from stream.kafka.clients import close_consumer, consumer_options, reader
from stream.local_kafka.broker import Broker
from stream.settings import Settings


def look_up(address: str, *, knows_nodes: bool) -> object:
    async def scenario() -> object:
        consumer_options(Settings(), "probe")
        client = AIOKafkaClient(bootstrap_servers=address)
        try:
            if knows_nodes:
                await client.bootstrap()
            return await client.coordinator_lookup(CoordinationType.GROUP, "group")
        finally:
            await client.close()

    return asyncio.run(scenario())


def test_a_client_that_knows_no_node_gets_an_error_that_aiokafka_retries(embedded_broker: Broker) -> None:
    assert GroupCoordinatorNotAvailableError.retriable
    with pytest.raises(GroupCoordinatorNotAvailableError):
        look_up(embedded_broker.address, knows_nodes=False)


def test_a_client_that_knows_a_node_asks_it(embedded_broker: Broker) -> None:
    assert look_up(embedded_broker.address, knows_nodes=True) is not None


def test_a_consumer_whose_topic_is_gone_asks_a_few_times_a_second_and_says_so_once(
    embedded_broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once there is a topic of its name again it goes on."""
    settings, source = Settings(broker=embedded_broker.address), TopicPartition("comes-and-goes", 0)
    num_asked, update = 0, known_nodes._update

    async def counted(*arguments: object) -> bool:
        nonlocal num_asked
        num_asked += 1
        return await update(*arguments)

    async def test() -> None:
        nonlocal num_asked
        admin = AIOKafkaAdminClient(**settings.connection())
        await admin.start()
        consumer = reader(settings, "probe")
        await consumer.start()
        try:
            consumer.assign([source])
            num_asked, end_s = 0, asyncio.get_running_loop().time() + 2
            while asyncio.get_running_loop().time() < end_s:
                await consumer.getmany(timeout_ms=100)
            assert 2 <= num_asked <= 2 / known_nodes._PAUSE_S + 2
            await admin.create_topics([NewTopic(source.topic, 1, 1)])
            async with asyncio.timeout(10):
                assert await consumer.position(source) == 0
        finally:
            await close_consumer(consumer)
            await admin.close()

    monkeypatch.setattr(known_nodes, "_update", counted)
    with caplog.at_level(logging.WARNING):
        asyncio.run(test())
    assert caplog.text.count("topic comes-and-goes does not exist") == 1
