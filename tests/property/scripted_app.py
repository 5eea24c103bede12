"""Faust's side of a worker on the scripted broker: membership, rebalances, and the real drain loop over scripted fetches."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from faust.types import TP

from stream.delivery.transport import BatchConsumer
from tests.property.scripted_clients import ScriptedPlays
from tests.property.scripted_worker import current_process

if TYPE_CHECKING:
    from stream.wire.records import Fetched

_HEARTBEAT_S = 1.0


class ScriptedConsumer(BatchConsumer):
    """The real drain loop and source side, over :class:`ScriptedPlays` instead of Faust's thread."""

    consumer_stopped_errors = ()

    def __init__(self, app: ScriptedApp) -> None:  # nothing of Faust's is set up
        self.app = app
        self.process = current_process()
        self.transport = SimpleNamespace(settings=self.process.world.settings)
        self.plays = ScriptedPlays(self.process)
        self._thread = SimpleNamespace(run=self._run, aiokafka_consumer=self.plays)
        self._stopped, self.can_resume_flow = asyncio.Event(), asyncio.Event()
        self._read_offset, self._committed_offset = {}, {}
        self.flow_active = False

    def deliver_to(self, sink: Any) -> None:
        self.transport.sink = sink

    async def _run(self, coroutine: Any) -> Any:
        # To the thread and back.
        try:
            await asyncio.sleep(0)
            result = await coroutine
        finally:
            coroutine.close()
        await self.process.running()
        return result

    async def wait(self, event: asyncio.Event) -> None:
        await event.wait()

    async def _getmany(self, active: set[TP], timeout: float) -> dict[TP, Fetched]:
        # On its way to the consumer's thread and back: what happens meanwhile must not let stale plays in.
        rng = self.process.world.broker.rng
        await asyncio.sleep(rng.choice((0.0, 0.0, 0.002, 0.1)))
        await self.process.running()
        fetched = self.plays.take({tp.partition for tp in active})
        await asyncio.sleep(rng.choice((0.0, 0.002, 0.02, 0.5, 3.0)) if fetched else timeout)
        await self.process.running()
        return fetched

    async def give_up(self) -> None:
        """As Faust's and ours on_partitions_revoked."""
        self.flow_active = False
        self.can_resume_flow.clear()
        await self._sink.partitions_revoked(set(self.plays.positions))

    async def take_over(self, member: str, generation: int, partitions: set[int]) -> None:
        """As Faust's and ours on_partitions_assigned, and what Faust does some time after it."""
        self.app.consumer_generation_id = generation
        self.plays.assigned(member, generation, partitions)
        self._sink.partitions_assigned(partitions)
        await asyncio.sleep(self.process.world.broker.rng.choice((0.0, 0.05, 1.0)))
        await self.perform_seek()
        self.flow_active = True
        self.can_resume_flow.set()

    async def seek_to_committed(self) -> dict[TP, int]:
        """Faust's: to what is committed; where nothing is, no seek."""
        committed = {p: self.process.world.broker.offsets.get(p) for p in self.plays.positions}
        self.plays.positions |= {p: offset for p, offset in committed.items() if offset is not None}
        return {TP(self._topic, p): -1 if offset is None else offset for p, offset in committed.items()}


class ScriptedApp:
    """As much of Faust's app as a worker process uses: membership and the drain loop, until stopped."""

    def __init__(self, settings: object, rebalance_timeout_s: float) -> None:
        self.consumer = ScriptedConsumer(self)
        self.consumer_generation_id = -1
        self.should_stop = False
        self.crash_reason: BaseException | None = None
        self._crashed = asyncio.Event()
        self._group = self.consumer.process.world.group
        self._member = ""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for work in (self._stay_member(), self.consumer._drain_messages(SimpleNamespace(_stopped=asyncio.Event()))):
            task = asyncio.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def stop(self) -> None:
        self.should_stop = True
        self.consumer._stopped.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.consumer.process.running()
        self._group.leave(self._member)

    async def _stay_member(self) -> None:
        consumer, number = self.consumer, 0
        while True:
            if not consumer.plays._coordinator.member_id:
                number += 1
                self._member = f"{consumer.process.name}-{number}"
            generation, partitions = await self._group.join(self._member)
            await consumer.process.running()
            await consumer.take_over(self._member, generation, partitions)
            while await self._beat():  # noqa: ASYNC110  # virtual time: nothing is polled
                await asyncio.sleep(_HEARTBEAT_S)
            await consumer.give_up()

    async def _beat(self) -> bool:
        try:
            return await self.consumer.plays.beat()
        except Exception:  # a heartbeat that failed is tried again
            return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crash_reason = error
            self._crashed.set()
