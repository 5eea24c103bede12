"""Batches of a producer that fail before they are delivered: their senders hear of it, and nobody else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.producer.message_accumulator import MessageAccumulator

from intentrec_core.errors import BrokerError
from stream.kafka import clients
from stream.kafka.clients import close_producer


@pytest.mark.parametrize("by", ["being closed", "aiokafka itself"])
@pytest.mark.parametrize("state", ["new", "being sent", "to be sent again", "sent again"])
def test_a_batch_that_fails_is_reported_to_its_sender_alone(
    monkeypatch: pytest.MonkeyPatch, state: str, by: str
) -> None:
    async def scenario() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        accumulator = MessageAccumulator(ClusterMetadata(), batch_size=16_384, compression_type=0, batch_ttl=60)
        partition = TopicPartition("plays", 0)
        sent = await accumulator.add_message(partition, None, b"a play", timeout=1)
        if state != "new":
            batch = accumulator._pop_batch(partition)
            if state != "being sent":
                accumulator.reenqueue(batch)
            if state == "sent again":
                accumulator._pop_batch(partition)
        if by == "being closed":
            closed = asyncio.get_running_loop().create_future()
            client = SimpleNamespace(close=lambda: closed)
            closed.set_result(None)
            await close_producer(
                SimpleNamespace(_message_accumulator=accumulator, client=client, stop=accumulator.close)
            )
        else:
            accumulator.fail_all(BrokerError("the producer was fenced"))
        with pytest.raises(BrokerError, match="the producer was"):
            await sent
        await accumulator.close()
        assert reported == []

    monkeypatch.setattr(clients, "CLOSE_DEADLINE_S", 0.01)
    asyncio.run(scenario())


def test_a_batch_that_is_delivered_when_sent_again_is_pending_no_longer() -> None:
    async def scenario() -> None:
        accumulator = MessageAccumulator(ClusterMetadata(), batch_size=16_384, compression_type=0, batch_ttl=60)
        partition = TopicPartition("plays", 0)
        sent = await accumulator.add_message(partition, None, b"a play", timeout=1)
        accumulator.reenqueue(accumulator._pop_batch(partition))
        flushing = asyncio.ensure_future(accumulator.flush())
        await asyncio.sleep(0)
        assert not flushing.done()
        accumulator._pop_batch(partition).done_noack()
        await flushing
        assert await sent is None
        assert not accumulator._pending_batches

    asyncio.run(scenario())
