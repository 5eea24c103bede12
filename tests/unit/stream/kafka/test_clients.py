"""Consumers see committed records only, and a client that fails to stop is closed anyway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stream.bundles import announcements
from stream.bundles.announcements import AnnouncementFollower
from stream.kafka import clients
from stream.kafka.clients import close_consumer, close_producer, consumer_options, start_producer
from stream.settings import Settings


def test_every_consumer_reads_committed_records_only_and_commits_nothing_by_itself() -> None:
    options = consumer_options(Settings(app_id="mine", broker="a:1,b:2"), "probe")
    assert options["isolation_level"] == "read_committed"
    assert options["enable_auto_commit"] is False
    assert (options["client_id"], options["bootstrap_servers"]) == ("mine-probe", "a:1,b:2")


def test_a_consumer_that_stops_badly_is_closed_and_cancels_nobody() -> None:
    class Consumer:
        closed = False

        def __init__(self) -> None:
            self._client = self

        async def stop(self) -> None:
            raise asyncio.CancelledError

        async def close(self) -> None:
            self.closed = True

    async def scenario() -> None:
        consumer = Consumer()
        await close_consumer(consumer)
        assert consumer.closed

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["hangs", "fails", "is cancelled"])
def test_a_producer_that_stops_badly_is_disconnected(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    class Producer:
        failed: BaseException | None = None
        closed = False

        def __init__(self) -> None:
            self._message_accumulator = self.client = self

        async def stop(self) -> None:
            if how == "hangs":
                await asyncio.sleep(3600)
            raise ValueError if how == "fails" else asyncio.CancelledError

        def fail_all(self, error: BaseException) -> None:
            self.failed = error

        async def close(self) -> None:
            self.closed = True
            await asyncio.sleep(3600)  # a connection whose broker takes no data

    async def scenario() -> None:
        producer = Producer()
        await close_producer(producer)
        assert producer.closed
        assert (producer.failed is not None) == (how == "hangs")

    monkeypatch.setattr(clients, "CLOSE_DEADLINE_S", 0.01)
    asyncio.run(scenario())


class Hanging:
    """A client that does not come to connect."""

    def __init__(self, *_: object, **__: object) -> None:
        self.began, self.stopped = asyncio.Event(), False

    async def start(self) -> None:
        self.began.set()
        await asyncio.sleep(3600)

    async def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("of", ["a producer", "a consumer"])
def test_a_client_whose_start_is_cancelled_is_closed(monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    async def scenario() -> None:
        client = Hanging()
        monkeypatch.setattr(clients, "AIOKafkaProducer", lambda **_: client)
        monkeypatch.setattr(announcements, "reader", lambda *_, **__: client)
        settings = Settings(broker="127.0.0.1:1")
        begins: Any = start_producer(settings) if of == "a producer" else AnnouncementFollower(settings).__aenter__()
        starting = asyncio.ensure_future(begins)
        await client.began.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert client.stopped

    asyncio.run(scenario())
