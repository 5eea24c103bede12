"""Consumers see committed records only, and a client that fails to stop is closed anyway."""

from __future__ import annotations

import asyncio

from stream.kafka.clients import close_consumer, consumer_options
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
