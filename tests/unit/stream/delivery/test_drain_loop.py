"""The drain loop while the flow stops or a rebalance begins: that fetch is dropped, and none of its plays is skipped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream.delivery.transport import BatchConsumer
from stream.wire.records import Fetched

TOPIC = "plays"


class Sink:
    """A worker with one task, whose next offset is 5."""

    def __init__(self) -> None:
        self.task = SimpleNamespace(next_fetch=5)
        self.accepted: list[int] = []

    async def wait_for_capacity(self) -> None:
        await asyncio.sleep(0)

    def fetchable(self) -> dict[int, Any]:
        return {0: self.task}

    def accept(self, task: Any, fetched: Fetched) -> None:
        assert task is self.task
        self.accepted.append(fetched.start)
        task.next_fetch = fetched.end


class Consumer(BatchConsumer):
    """The real loop over a log with a play at every offset; ``meanwhile`` runs during the first fetch."""

    consumer_stopped_errors = ()

    def __init__(self, sink: Sink, meanwhile: Callable[[Consumer], None]) -> None:  # without Faust's own constructor
        self.transport = SimpleNamespace(sink=sink, settings=SimpleNamespace(plays_topic=TOPIC))
        self.app = SimpleNamespace(consumer_generation_id=1, should_stop=False)
        self._stopped, self.can_resume_flow = asyncio.Event(), asyncio.Event()
        self._read_offset = {}
        self.flow_active = True
        self.position = 5
        self._meanwhile = [meanwhile]

    async def wait(self, event: asyncio.Event) -> None:
        await event.wait()
        self.flow_active = True

    async def _getmany(self, active: set[TP], timeout: float) -> dict[TP, Fetched]:
        start, self.position = self.position, self.position + 10
        await asyncio.sleep(0)
        if self._meanwhile:
            self._meanwhile.pop()(self)
        return {TP(TOPIC, 0): Fetched(start, (), self.position)}

    async def seek_source(self, partition: int, offset: int) -> None:
        await asyncio.sleep(0)
        self.position = offset


def stop_flow(consumer: Consumer) -> None:
    consumer.flow_active = False
    consumer.can_resume_flow.set()


def rebalance(consumer: Consumer) -> None:
    consumer.app.consumer_generation_id += 1


def drain(sink: Sink, meanwhile: Callable[[Consumer], None]) -> None:
    """Runs the loop until it has accepted two fetches."""

    async def run() -> None:
        consumer = Consumer(sink, meanwhile)
        draining = asyncio.ensure_future(consumer._drain_messages(SimpleNamespace(_stopped=asyncio.Event())))
        async with asyncio.timeout(30):
            while len(sink.accepted) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            consumer._stopped.set()
            await draining

    asyncio.run(run())


@pytest.mark.parametrize("meanwhile", [stop_flow, rebalance])
def test_a_dropped_fetch_is_fetched_again(meanwhile: Callable[[Consumer], None]) -> None:
    sink = Sink()
    drain(sink, meanwhile)
    assert sink.accepted[:2] == [5, 15]


def test_a_dropped_fetch_of_one_task_does_not_move_the_position_of_the_next() -> None:
    sink = Sink()

    def reopen(consumer: Consumer) -> None:
        sink.task = SimpleNamespace(next_fetch=100)
        consumer.position = 100
        rebalance(consumer)

    drain(sink, reopen)
    assert sink.accepted[:2] == [100, 110]
