"""Clients that stop badly are closed all the same."""

from __future__ import annotations

import asyncio

from stream.kafka.closing import close_consumer


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
