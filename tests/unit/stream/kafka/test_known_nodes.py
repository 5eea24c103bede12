"""A client that knows no node retries its look-up of a coordinator instead of failing an assertion."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import GroupCoordinatorNotAvailableError

from stream.kafka.clients import consumer_options
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
