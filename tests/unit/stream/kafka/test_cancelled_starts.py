"""No connection stays open where a client is cancelled while it asks for the nodes of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from stream.bundles.announcements import AnnouncementFollower
from stream.delivery.changelog import TransactionalWriter
from stream.kafka.clients import start_producer
from stream.local_kafka.broker import Broker
from stream.settings import Settings


async def start_writer(settings: Settings) -> None:
    writer = TransactionalWriter(settings, 0, lambda _: pytest.fail("nothing is committed"), None)
    try:
        await writer.open()
    finally:
        await writer.close()


STARTS: dict[str, Callable[[Settings], Awaitable[Any]]] = {
    "a producer": start_producer,
    "a consumer": lambda settings: AnnouncementFollower(settings).__aenter__(),
    "a writer of the changelog": start_writer,
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "refused"])
def test_the_connection_it_asked_by_is_closed(
    embedded_broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[[Settings], Awaitable[Any]],
    is_cancelled: bool,
) -> None:
    asked: asyncio.Queue[AIOKafkaConnection] = asyncio.Queue()
    send = AIOKafkaConnection.send

    async def send_but_for_metadata(connection: AIOKafkaConnection, request: Any, **options: Any) -> Any:
        if not isinstance(request, MetadataRequest):
            return await send(connection, request, **options)
        asked.put_nowait(connection)
        if not is_cancelled:
            raise ValueError("an answer that cannot be read")
        return await asyncio.sleep(3600)

    async def scenario() -> None:
        starting = asyncio.ensure_future(start(Settings(broker=embedded_broker.address)))
        connection = await asked.get()
        if is_cancelled:
            starting.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else ValueError):
            await starting
        assert not connection.connected()

    monkeypatch.setattr(AIOKafkaConnection, "send", send_but_for_metadata)
    asyncio.run(scenario())
