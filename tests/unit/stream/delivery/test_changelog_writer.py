"""If a later batch of a checkpoint cannot be sent, asyncio must not report the failure of the earlier ones as well."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer.message_accumulator import BatchBuilder

from stream.delivery.changelog import Checkpoint, PlainWriter
from stream.kafka.publisher import Publisher
from stream.settings import Settings
from stream.wire.records import OutputKind, OutputRecord


class Producer:
    """Takes one batch, whose delivery fails later; the broker is gone before the second one."""

    def __init__(self) -> None:
        self.taken: list[asyncio.Future[object]] = []

    async def partitions_for(self, topic: str) -> set[int]:
        return {0}

    def create_batch(self) -> BatchBuilder:
        """Holds one record."""
        return BatchBuilder(1, 0)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[object]:
        if self.taken:
            raise KafkaConnectionError("the second batch")
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[0]


async def write_checkpoint(producer: Any) -> None:
    def marker(_: int) -> Any:
        return SimpleNamespace(encode=lambda: b"marker")

    async def commit(partition: int, offset: int) -> bool:
        raise AssertionError

    changes = {b"a": b"1", b"b": b"2"}
    await PlainWriter(Settings(), 0, marker, producer, commit).commit(Checkpoint(7, changes))


async def send_in_transaction(producer: Any) -> None:
    topics = dict.fromkeys(OutputKind, "outputs")
    publisher = Publisher(producer, topics, on_published=lambda _: None)
    await publisher.start()
    outputs = [OutputRecord(OutputKind.LATE, b"ann", b"{}", (), offset, 0) for offset in range(2)]
    await publisher.send_in_transaction(producer, outputs)


@pytest.mark.parametrize("send", [write_checkpoint, send_in_transaction])
def test_a_batch_that_nothing_awaits_any_more_fails_in_silence(send: Any) -> None:
    reported: list[Any] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["message"]))
        producer = Producer()
        with pytest.raises(KafkaConnectionError, match="the second batch"):
            await send(producer)
        producer.taken[0].set_exception(KafkaConnectionError("the first batch"))
        producer.taken.clear()
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(scenario())
    assert reported == []
