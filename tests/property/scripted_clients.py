"""The clients of a worker on the scripted broker: the part of aiokafka that the product calls.

Its ways that matter: a batch that failed does not fail the transaction's commit; cancelling a call does not call a request back;
an offset commit inside a transaction carries no generation; a partition that was assigned is read from its committed offset, or
from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalGenerationError
from faust.types import TP

from stream.wire.records import Fetched
from tests.property.scripted_broker import Log, Transaction
from tests.property.scripted_group import Heartbeat
from tests.property.scripted_worker import ScriptedProcess, current_process

if TYPE_CHECKING:
    from tests.property.scripted_broker import Entry

_FETCHED = 7
_NEVER_TIMED = 0


class ScriptedBatch:
    """A batch builder that is full after ``limit`` bytes. As aiokafka's, it has a builder of records, which counts nothing."""

    def __init__(self, limit: int) -> None:
        self.records: list[tuple[int, bytes | None, bytes | None, Any]] = []
        self._left, self._closed = limit, False
        self._builder, self._relative_offset = SimpleNamespace(append=self._append), 0

    def append(self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Any = ()) -> object:
        """None when it is full; the first record always fits."""
        return self._append(len(self.records), timestamp, key, value, headers)

    def _append(
        self, offset: int, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Any
    ) -> object:
        assert offset == len(self.records)
        size = len(key or b"") + len(value or b"")
        if self._closed or (self.records and size > self._left):
            self._closed = True
            return None
        self._left -= size
        self.records.append((timestamp or _NEVER_TIMED, key, value, headers))
        return self

    def close(self) -> None:
        self._closed = True

    def closed(self) -> bool:
        return self._closed


class ScriptedProducer:
    """aiokafka's producer; transactional where it is given an id."""

    def __init__(self, *, transactional_id: str | None = None, **_: Any) -> None:
        self._process = current_process()
        self._world = self._process.world
        self._broker = self._world.broker
        self._id, self._epoch = transactional_id, 0
        self._pending: list[asyncio.Future[None]] = []
        self.client = SimpleNamespace(cluster=self)
        self._message_accumulator = SimpleNamespace(fail_all=lambda error: None)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._broker.num_partitions))

    async def partitions_for(self, topic: str) -> set[int]:
        return self.partitions_for_topic(topic)

    async def start(self) -> None:
        if self._id is not None:
            name = self._id
            self._epoch = await self._call("fence", lambda: self._broker.init_producer_id(name))

    async def stop(self) -> None:
        await asyncio.sleep(0)

    def create_batch(self) -> ScriptedBatch:
        return ScriptedBatch(self._world.batch_bytes)

    async def send_batch(self, batch: ScriptedBatch, topic: str, *, partition: int) -> asyncio.Future[None]:
        await asyncio.sleep(0)
        name = "changelog" if topic == self._world.settings.changelog_topic else "publish"
        log = self._broker.log(topic, partition)
        sending = asyncio.ensure_future(
            self._call(name, lambda: log.append(batch.records, self._transaction()), connection=(self, log))
        )
        # Cancelling what the caller holds does not stop the batch.
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sending.add_done_callback(lambda _: _pass_on(sending, acknowledged))
        self._pending.append(sending)
        return acknowledged

    async def begin_transaction(self) -> None:
        await asyncio.sleep(0)
        self._pending.clear()

    async def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int], group: str) -> None:
        def add() -> None:
            transaction = self._transaction()
            assert transaction is not None
            transaction.offsets |= {source.partition: offset for source, offset in offsets.items()}

        await self._call("offsets", add)

    async def commit_transaction(self) -> None:
        if self._pending:
            await asyncio.wait(self._pending)
        name = self._id
        assert name is not None
        await self._call("commit", lambda: self._broker.end_transaction(name, self._epoch))

    def _transaction(self) -> Transaction | None:
        return None if self._id is None else self._broker.transaction(self._id, self._epoch)

    async def _call(self, name: str, effect: Any, connection: object = None) -> Any:
        return await self._broker.call(self._process, name, effect, connection=connection or self)


class ScriptedRecoveryConsumer:
    """aiokafka's consumer without a group, as the recovery reader and the watch on the log's end use it."""

    def __init__(self, *, isolation_level: str = "read_uncommitted", **_: Any) -> None:
        self._process = current_process()
        self._broker = self._process.world.broker
        self._committed = isolation_level == "read_committed"
        self._log: Log
        self._position = 0

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await asyncio.sleep(0)

    def assign(self, sources: list[TopicPartition]) -> None:
        (source,) = sources
        self._log = self._broker.log(source.topic, source.partition)

    async def seek_to_beginning(self, source: TopicPartition) -> None:
        self._position = 0

    async def end_offsets(self, sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        if (
            sources[0].topic == self._process.world.settings.plays_topic
        ):  # whether the broker is there: no step of a delivery
            return {source: self._broker.log(source.topic, source.partition).end for source in sources}
        end = await self._broker.call(self._process, "changelog's end", self._end, connection=self)
        return dict.fromkeys(sources, end)

    async def position(self, source: TopicPartition) -> int:
        return self._position

    async def getmany(
        self, source: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Entry]]:
        def read() -> list[Entry]:
            return self._log.read(self._position, max_records, committed=self._committed)

        found = await self._broker.call(self._process, "read changelog", read, connection=self)
        self._position = found[-1].offset + 1 if found else max(self._position, self._end())
        return {source: found} if found else {}

    def _end(self) -> int:
        return self._log.stable_end if self._committed else self._log.end


class ScriptedPlays:
    """aiokafka's consumer of the plays and its coordinator's side, as the transport uses them."""

    def __init__(self, process: ScriptedProcess) -> None:
        self._process, self._world = process, process.world
        self._broker, self._topic = self._world.broker, self._world.settings.plays_topic
        self.positions: dict[int, int] = {}
        self._subscription = SimpleNamespace(fetch_context=nullcontext)
        self._client = SimpleNamespace(force_metadata_update=_nothing)
        self._coordinator = SimpleNamespace(
            generation=-1,
            member_id="",
            _rejoin_needed_fut=asyncio.get_running_loop().create_future(),
            ensure_coordinator_known=_nothing,
            _do_heartbeat=self._heartbeat,
        )

    def assigned(self, member: str, generation: int, partitions: set[int]) -> None:
        """Takes over what the group gave, to be read from the committed offsets."""
        self._coordinator.member_id, self._coordinator.generation = member, generation
        self._coordinator._rejoin_needed_fut = asyncio.get_running_loop().create_future()
        self.positions = {partition: self._broker.offsets.get(partition, 0) for partition in partitions}

    async def beat(self) -> bool:
        """Whether the member may go on; if not, it has to rejoin."""
        answered = await self._heartbeat()
        return answered and not self._coordinator._rejoin_needed_fut.done()

    async def _heartbeat(self) -> bool:
        coordinator = self._coordinator

        def answer() -> Heartbeat:
            return self._world.group.heartbeat(coordinator.member_id, coordinator.generation)

        heard = await self._broker.call(self._process, "heartbeat", answer, connection=self)
        if heard is not Heartbeat.OK and not coordinator._rejoin_needed_fut.done():
            coordinator._rejoin_needed_fut.set_result(None)
        if heard is Heartbeat.UNKNOWN:
            coordinator.generation, coordinator.member_id = -1, ""
        return heard is not Heartbeat.UNKNOWN

    def take(self, partitions: set[int]) -> dict[TP, Fetched]:
        """What is fetched next; positions move with it, also over records that are given to no one."""
        fetched = {}
        for partition in sorted(partitions & self.positions.keys()):
            start, log = self.positions[partition], self._broker.log(self._topic, partition)
            found = log.read(start, _FETCHED, committed=True)
            end = found[-1].offset + 1 if len(found) == _FETCHED else max(start, log.stable_end)
            if end != start:
                self.positions[partition] = end
                fetched[TP(self._topic, partition)] = Fetched(start, found, end)
        return fetched

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(self._topic, partition) for partition in self.positions}

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.positions[source.partition] = offset

    async def position(self, source: TopicPartition) -> int:
        return self.positions[source.partition]

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._broker.num_partitions))

    async def committed(self, source: TopicPartition) -> int | None:
        return await self._call("committed offset", lambda: self._broker.offsets.get(source.partition))

    async def beginning_offsets(self, sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(sources, 0)

    async def end_offsets(self, sources: Any) -> dict[TopicPartition, int]:
        return {source: self._broker.log(source.topic, source.partition).end for source in sources}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        coordinator = self._coordinator

        def commit() -> None:
            if not self._world.group.knows(coordinator.member_id, coordinator.generation):
                raise IllegalGenerationError
            self._broker.offsets |= {source.partition: offset for source, offset in offsets.items()}
            self._broker.on_checkpoint()

        await self._call("commit offset", commit)

    async def _call(self, name: str, effect: Any) -> Any:
        return await self._broker.call(self._process, name, effect, connection=self)


def _pass_on(sending: asyncio.Future[None], acknowledged: asyncio.Future[None]) -> None:
    error = asyncio.CancelledError() if sending.cancelled() else sending.exception()
    if acknowledged.done():
        return
    if isinstance(error, asyncio.CancelledError):
        acknowledged.cancel()
    elif error is not None:
        acknowledged.set_exception(error)
        acknowledged.exception()  # it is raised where it is awaited, and need not be awaited
    else:
        acknowledged.set_result(None)


async def _nothing() -> None:
    await asyncio.sleep(0)
