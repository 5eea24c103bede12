"""Faust's transport with one difference: plays leave it as whole batches, by partition, and never event by event.

Faust spends four futures and two queues on a message; handing over what the fetcher returned is about ten times faster.
Everything else (membership, rebalances, lifecycle, the consumer's thread) stays Faust's. A few private methods are overridden or
used; ``check_private_names`` refuses to start when one is gone, because a silently unused override would lose plays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import aiokafka
from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from intentrec_core.errors import BrokerError
from stream.delivery.partition import Membership
from stream.delivery.private_names import check_private_names
from stream.delivery.start_offset import SourceFacts
from stream.kafka.clients import consumer_options
from stream.wire.records import Fetched

if TYPE_CHECKING:
    from mode import Service, ServiceT

    from stream.delivery.partition import PartitionTask
    from stream.settings import Settings

T = TypeVar("T")

#: How soon a partition that became ready is fetched at low load; longer only saves idle turns.
_POLL_S = 0.1
#: As little as a play takes in the log.
_PLAY_BYTES = 256
_MAX_POLL_RECORDS = 2048
_REQUEST_TIMEOUT_S = 40.0
_HEARTBEAT_DEADLINE_S = 5.0
_STOP_NOTICED_S = 0.2


class PlaysSink(Protocol):
    """Where the batches go: the worker, seen from the transport."""

    async def wait_for_capacity(self) -> None:
        """Returns when more plays may be fetched."""
        ...

    def fetchable(self) -> dict[int, PartitionTask]:
        """The tasks that are ready, by partition."""
        ...

    def accept(self, task: PartitionTask, fetched: Fetched) -> None:
        """Takes what was fetched for a task; one that has ended meanwhile drops it."""
        ...

    async def partitions_revoked(self, partitions: set[int]) -> None:
        """The group takes partitions away; they must be closed on return. Never raises."""
        ...

    def partitions_assigned(self, partitions: set[int]) -> None:
        """The group gave partitions; they are opened in the background."""
        ...


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        # Faust's own reads uncommitted plays and, without tables, assigns round robin.
        assert isinstance(transport, BatchTransport)
        settings = transport.settings
        return aiokafka.AIOKafkaConsumer(
            **consumer_options(settings, "worker"),
            group_id=settings.app_id,
            group_instance_id=settings.consumer_group_instance_id,
            partition_assignment_strategy=[StickyPartitionAssignor],
            auto_offset_reset="earliest",
            max_poll_records=_MAX_POLL_RECORDS,
            # A partition that was sought waits for the poll in flight to its node, which is therefore short.
            fetch_max_wait_ms=settings.fetch_wait_ms,
            fetch_min_bytes=settings.max_batch * _PLAY_BYTES,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            rebalance_timeout_ms=int(transport.rebalance_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 5),
            request_timeout_ms=int(max(_REQUEST_TIMEOUT_S, transport.rebalance_timeout_s + 10) * 1000),
            # New partitions and new leaders are noticed within this time.
            metadata_max_age_ms=60_000,
        )

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Tells the assignor its generation, which aiokafka forgets: old claims lose against newer ones."""
        StickyPartitionAssignor.on_generation_assignment(generation_id)
        await self._unless_stopping(super().on_partitions_assigned(assigned, generation_id))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust's, which for an app that stops meanwhile would wait forever for a queue that is gone."""
        await self._unless_stopping(super().on_partitions_revoked(revoked))

    async def _fetch_records(  # type: ignore[override]  # its one caller is _drain_messages below
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Fetched]:
        """Faust's, with what each partition's records cover: where offsets are missing, only positions tell gaps from losses.

        A partition whose position moved without a record (an aborted transaction) is there with none.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + (timeout or 0)
        while True:
            before = _positions(consumer, active_partitions)
            # Without a timeout the records are taken in the same step of this loop as the positions around them.
            records = await super()._fetch_records(consumer, active_partitions, timeout=0, max_records=max_records)
            after = _positions(consumer, active_partitions)
            moved = {
                tp: Fetched(start, records.get(tp, ()), after[tp])
                for tp, start in before.items()
                if tp in after and (tp in records or after[tp] != start)
            }
            rest_s = give_up_s - loop.time()
            if moved or rest_s <= 0:
                return moved
            arrival = consumer._fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([arrival], timeout=rest_s)
            if not done:
                arrival.cancel()
                return {}
            arrival.result()

    async def _unless_stopping(self, callback: Coroutine[Any, Any, None]) -> None:
        called = asyncio.ensure_future(callback)
        while not called.done():
            await asyncio.wait([called], timeout=_STOP_NOTICED_S)
            if self.app.should_stop:
                called.cancel()
                return
        called.result()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the consumer's loop. Unlike ``call_thread`` it is cancelled with its caller and never queues."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop)
        return await asyncio.wrap_future(future)

    @property
    def aiokafka_consumer(self) -> aiokafka.AIOKafkaConsumer:
        """The consumer, to be used on its own loop."""
        return self._ensure_consumer()


class BatchConsumer(driver.Consumer):
    """Hands plays to a sink in batches; the source side of every partition's task."""

    _thread: BatchConsumerThread

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _sink(self) -> PlaysSink:
        return cast("BatchTransport", self.transport).sink

    @property
    def _topic(self) -> str:
        return cast("BatchTransport", self.transport).settings.plays_topic

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """The one loop that fetches plays. Ends when the consumer or the fetcher stops, or by CancelledError."""
        sink, stopped = self._sink, cast("Service", fetcher)._stopped
        try:
            while not (self._stopped.is_set() or stopped.is_set()):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # mode's own Event is meant
                    continue
                await sink.wait_for_capacity()
                tasks = sink.fetchable()
                if not tasks:
                    await self._thread.run(self._stay_active())
                    await asyncio.sleep(_POLL_S / 2)
                    continue
                generation = self.app.consumer_generation_id
                topic_partitions = {TP(self._topic, partition) for partition in tasks}
                fetched = cast("dict[TP, Fetched]", await self._getmany(topic_partitions, timeout=_POLL_S))
                if self._stopped.is_set() or stopped.is_set():
                    return
                if not self.flow_active or generation != self.app.consumer_generation_id:
                    await self._seek_back(tasks)
                    continue
                for tp, batch in fetched.items():
                    sink.accept(tasks[tp.partition], batch)
                    self._read_offset[TP(tp.topic, tp.partition)] = batch.end - 1
                await asyncio.sleep(0)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    async def _seek_back(self, tasks: Mapping[int, PartitionTask]) -> None:
        """To each task's own next offset: what was fetched for it is dropped.

        Belt and braces: a rebalance takes all tasks out before the flow stops for it, and new ones seek as they open. Where Faust
        stops the flow for anything else, what was fetched meanwhile would be missing: the worker would see the gap, and reopen.
        """
        for partition, task in tasks.items():
            # While one is sought another can end, and its next task has sought its own offset.
            if self._sink.fetchable().get(partition) is task:
                await self.seek_source(partition, task.next_fetch)

    async def perform_seek(self) -> None:
        """Nothing. Faust's seeks to the committed offsets after each rebalance; our tasks sought their own when they opened."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stops the flow, then closes the partitions: aiokafka rejoins the group when this returns."""
        self.stop_flow()
        await self._sink.partitions_revoked(self._plays(revoked))
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Has the partitions opened in the background: aiokafka sends no heartbeats until this returns."""
        await super().on_partitions_assigned(assigned, generation_id)
        self._sink.partitions_assigned(self._plays(assigned))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's check of its event path, which plays do not take; progress is watched by stream.ops.health."""

    def _plays(self, partitions: set[TP]) -> set[int]:
        return {tp.partition for tp in partitions if tp.topic == self._topic}

    async def source_facts(self, partition: int) -> SourceFacts:
        """See stream.delivery.partition.SourceConsumer. Raises: KafkaError or BrokerError when the broker fails."""
        return await self._thread.run(self._source_facts(TopicPartition(self._topic, partition)))

    async def _source_facts(self, source: TopicPartition) -> SourceFacts:
        consumer = self._thread.aiokafka_consumer
        committed = await consumer.committed(source)
        beginning = await consumer.beginning_offsets([source])
        end = await consumer.end_offsets([source])
        await consumer._client.force_metadata_update()
        partitions = consumer.partitions_for_topic(source.topic)
        if not partitions:  # a broker that has just come up; as a fact it would end in the marker
            raise BrokerError(f"the broker names no partitions of {source.topic}")
        return SourceFacts(
            committed=committed, beginning=beginning[source], end=end[source], num_partitions=len(partitions)
        )

    async def first_timestamp_ms(self, partition: int) -> int | None:
        """See stream.delivery.partition.SourceConsumer. Raises: KafkaError when the broker fails."""
        return await self._thread.run(self._first_timestamp_ms(TopicPartition(self._topic, partition)))

    async def _first_timestamp_ms(self, source: TopicPartition) -> int | None:
        found = (await self._thread.aiokafka_consumer.offsets_for_times({source: 0}))[source]
        return None if found is None else int(found.timestamp)

    async def seek_source(self, partition: int, offset: int) -> None:
        """See stream.delivery.partition.SourceConsumer. A partition that is no longer assigned is left alone."""
        await self._thread.run(self._seek_source(TopicPartition(self._topic, partition), offset))

    async def _seek_source(self, source: TopicPartition, offset: int) -> None:
        consumer = self._thread.aiokafka_consumer
        if source in consumer.assignment():
            consumer.seek(source, offset)

    async def commit_source(self, partition: int, offset: int) -> bool:
        """See stream.delivery.partition.SourceConsumer. Raises: KafkaError when the broker refuses."""
        return await self._thread.run(self._commit_source(TopicPartition(self._topic, partition), offset))

    async def _commit_source(self, source: TopicPartition, offset: int) -> bool:
        consumer = self._thread.aiokafka_consumer
        if source not in consumer.assignment():
            return False
        await consumer.commit({source: offset})
        return True

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        """See stream.delivery.partition.SourceConsumer. Raises: KafkaError when the broker fails."""
        return await self._thread.run(self._source_positions({TopicPartition(self._topic, p) for p in partitions}))

    async def _source_positions(self, sources: set[TopicPartition]) -> dict[int, tuple[int, int]]:
        consumer = self._thread.aiokafka_consumer
        mine = sources & consumer.assignment()
        ends = await consumer.end_offsets(mine) if mine else {}
        return {source.partition: (await consumer.position(source), end) for source, end in ends.items()}

    async def membership(self, partition: int) -> Membership:
        """See stream.delivery.partition.SourceConsumer: a heartbeat under our generation has to be answered well."""
        return await self._thread.run(self._membership(TopicPartition(self._topic, partition)))

    async def _membership(self, source: TopicPartition) -> Membership:
        consumer = self._thread.aiokafka_consumer
        coordinator = consumer._coordinator
        generation, member = coordinator.generation, coordinator.member_id

        def unchanged() -> bool:
            return (
                coordinator.generation == generation
                and coordinator.member_id == member
                and not coordinator._rejoin_needed_fut.done()
                and source in consumer.assignment()
            )

        if not member or not unchanged():
            return Membership.NO
        try:
            async with asyncio.timeout(_HEARTBEAT_DEADLINE_S):
                await coordinator.ensure_coordinator_known()
                answered = await coordinator._do_heartbeat()
        except (TimeoutError, KafkaError):
            return Membership.UNKNOWN
        if not unchanged():
            return Membership.NO
        return Membership.YES if answered else Membership.UNKNOWN

    async def _stay_active(self) -> None:
        # aiokafka makes a consumer that fetches nothing for max_poll_interval leave its group; a long restore fetches nothing.
        with self._thread.aiokafka_consumer._subscription.fetch_context():
            pass


class BatchTransport(driver.Transport):
    """To be set as ``app.transport`` before the app starts."""

    Consumer = BatchConsumer

    #: Where fetched plays go; set before the app starts.
    sink: PlaysSink

    def __init__(self, *args: Any, settings: Settings, rebalance_timeout_s: float, **kwargs: Any) -> None:
        check_private_names()
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.rebalance_timeout_s = rebalance_timeout_s


def _positions(consumer: aiokafka.AIOKafkaConsumer, partitions: set[TP]) -> dict[TP, int]:
    """Where the consumer goes on, of those that are assigned and know it."""
    assigned = partitions & consumer.assignment()
    if not assigned:
        return {}
    assignment = consumer._subscription.subscription.assignment
    states = {tp: assignment.state_value(tp) for tp in assigned}
    return {tp: state.position for tp, state in states.items() if state.has_valid_position}
