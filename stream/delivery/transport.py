"""Faust's Kafka transport, with one difference: plays leave it in whole batches by partition, not one by one.

A fetch is shared among the partitions that have plays. aiokafka alone empties one partition's megabyte after another: a worker
that catches up would leave a partition that it has just restored without an answer until all others had their turn.

Faust spends four futures and two queues on each message; passing on whole fetches is about ten times faster. Everything else
(membership, rebalances, lifecycle, the consumer's thread) is Faust's. Some of its private methods are overridden or used;
``check_private_names`` refuses to start when one is missing, because an override that is silently not called would lose plays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import aiokafka
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from intentrec_core.errors import BrokerError
from stream.delivery.gathering import Gathering
from stream.delivery.partition import Membership
from stream.delivery.private_names import check_private_names
from stream.delivery.start_offset import SourceFacts
from stream.kafka.clients import close_consumer, consumer_options
from stream.wire.records import Fetched

if TYPE_CHECKING:
    from mode import Service, ServiceT

    from stream.delivery.partition import PartitionTask
    from stream.settings import Settings

T = TypeVar("T")

#: At low load, a partition that has become ready is fetched within this time. A longer time would only save idle turns.
_POLL_S = 0.1
#: The smallest size of a play in the log.
_PLAY_BYTES = 256
_MAX_POLL_RECORDS = 2048
#: Partitions in one fetch. Each costs a pass over the partitions that wait, and a share of less than 32 plays is not worth it.
_MAX_SHARES = 64
_REQUEST_TIMEOUT_S = 40.0
_HEARTBEAT_DEADLINE_S = 5.0
_STOP_NOTICED_S = 0.2


class PlaysSink(Protocol):
    """Where fetched plays go: the worker, as the transport sees it."""

    async def wait_for_capacity(self) -> None:
        """Returns when more plays may be fetched."""
        ...

    def fetchable(self) -> dict[int, PartitionTask]:
        """The tasks that are ready, by partition."""
        ...

    def accept(self, task: PartitionTask, fetched: Fetched) -> None:
        """Accepts a fetch for a task; drops it if the task has ended meanwhile."""
        ...

    async def partitions_revoked(self, partitions: set[int]) -> None:
        """The group revokes partitions; they must be closed on return. Never raises."""
        ...

    def partitions_assigned(self, partitions: set[int]) -> None:
        """The group assigned partitions; they are opened in the background."""
        ...


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer."""

    logger = logging.getLogger("mode")  # else mode's own lines ("Starting...") would be logged under this module's name

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Partitions in the order of their last turn.
        self._served: dict[TP, None] = {}
        settings = cast("BatchTransport", self.consumer.transport).settings
        self._gathering = Gathering(settings.gather_above_per_s, time.monotonic)
        self._gathered_bytes = settings.max_batch * _PLAY_BYTES

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        # Faust's own consumer reads uncommitted plays and, without tables, assigns partitions round robin.
        assert isinstance(transport, BatchTransport)
        settings = transport.settings
        return aiokafka.AIOKafkaConsumer(
            **consumer_options(settings, "worker"),
            group_id=settings.app_id,
            group_instance_id=settings.consumer_group_instance_id,
            partition_assignment_strategy=[StickyPartitionAssignor],
            auto_offset_reset="earliest",
            max_poll_records=_MAX_POLL_RECORDS,
            # After a seek, a partition waits for the poll in flight to its node, so polls are short.
            fetch_max_wait_ms=settings.fetch_wait_ms,
            fetch_min_bytes=1,  # _fetch_records sets it by the rate of plays
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            rebalance_timeout_ms=int(transport.rebalance_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 5),
            request_timeout_ms=int(max(_REQUEST_TIMEOUT_S, transport.rebalance_timeout_s + 10) * 1000),
            # New partitions and new leaders are noticed within this time.
            metadata_max_age_ms=60_000,
        )

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Passes the generation to the assignor, which aiokafka does not: older claims must lose against newer ones."""
        StickyPartitionAssignor.on_generation_assignment(generation_id)
        await self._unless_stopping(super().on_partitions_assigned(assigned, generation_id))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """As in Faust, which would wait forever on a closed queue if the app stops meanwhile."""
        await self._unless_stopping(super().on_partitions_revoked(revoked))

    async def _fetch_records(  # type: ignore[override]  # other records than Faust's; only _drain_messages below calls it
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Fetched]:
        """As in Faust, and with the offsets that each fetch covers: only positions distinguish a gap in the log from a loss.

        A partition whose position moved without a record (an aborted transaction) has an entry without records.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + (timeout or 0)
        while True:
            before = _positions(consumer, active_partitions)
            # Without a timeout, the records and the positions before and after them are read in one step of this loop.
            records = await self._fetch_shares(consumer, active_partitions, max_records or _MAX_POLL_RECORDS)
            after = _positions(consumer, active_partitions)
            fetched = {
                tp: Fetched(start, records.get(tp, ()), after[tp])
                for tp, start in before.items()
                if tp in after and (tp in records or after[tp] != start)
            }
            self._gathering.fetched(sum(len(part.records) for part in fetched.values()), len(active_partitions))
            # In the same step as the records were taken, and so before aiokafka makes its next request.
            consumer._fetcher._fetch_min_bytes = self._min_bytes()
            remaining_s = deadline_s - loop.time()
            if fetched or remaining_s <= 0:
                return fetched
            arrival = consumer._fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([arrival], timeout=remaining_s)
            if not done:
                arrival.cancel()
                return {}
            arrival.result()

    async def _fetch_shares(
        self, consumer: aiokafka.AIOKafkaConsumer, partitions: set[TP], max_records: int
    ) -> Mapping[TP, list[ConsumerRecord]]:
        """What has been fetched already: ``max_records``, in equal shares of the partitions that have any and were served last
        the longest time ago. What one does not use is left to the next ones; each gets at least one play.

        Raises: what a partition's fetch failed with, before any play is taken, because plays that are taken cannot be given back.
        """
        fetched = consumer._fetcher._records
        turns = {tp: turn for turn, tp in enumerate(self._served)}
        waiting = sorted((tp for tp in fetched if tp in partitions), key=lambda tp: turns.get(tp, -1))[:_MAX_SHARES]
        waiting.sort(key=lambda tp: type(fetched[tp]) is FetchResult)
        if not waiting:  # Faust's checks, and the sign of life that aiokafka expects
            return await super()._fetch_records(consumer, partitions, timeout=0, max_records=max_records)
        shares: dict[TP, list[ConsumerRecord]] = {}
        for place, tp in enumerate(waiting):
            share = max(1, max_records // (len(waiting) - place))
            records = await super()._fetch_records(consumer, {tp}, timeout=0, max_records=share)
            shares |= records
            max_records -= sum(map(len, records.values()))
            self._served.pop(tp, None)
            self._served[tp] = None
        return shares

    def _min_bytes(self) -> int:
        """With how many bytes the broker answers a fetch at once: those of a micro-batch if it gathers plays, else any."""
        return self._gathered_bytes if self._gathering.active else 1

    async def on_thread_stop(self) -> None:
        """As in Faust, but never raises: closing the consumer of a broker that is away would end this thread with a traceback."""
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is not None:
            await close_consumer(self._consumer)

    async def _unless_stopping(self, callback: Coroutine[Any, Any, None]) -> None:
        called = asyncio.ensure_future(callback)
        while not called.done():
            await asyncio.wait([called], timeout=_STOP_NOTICED_S)
            if self.app.should_stop:
                called.cancel()
                return
        called.result()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the consumer's loop; unlike ``call_thread``, it is cancelled with its caller and does not queue."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop)
        return await asyncio.wrap_future(future)

    @property
    def aiokafka_consumer(self) -> aiokafka.AIOKafkaConsumer:
        """The consumer; use it on its own loop only."""
        return self._ensure_consumer()


class BatchConsumer(driver.Consumer):
    """Passes plays to a sink in batches; also the source consumer of every partition task."""

    logger = logging.getLogger("mode")  # else mode's own lines ("Starting...") would be logged under this module's name

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
        """The only loop that fetches plays. Ends when the consumer or the fetcher stops, or with CancelledError."""
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
        """Seeks back to each task's next offset, because the fetch for it is dropped.

        Belt and braces: a rebalance ends all tasks before it stops the flow, and new tasks seek when they open. If Faust stops
        the flow for another reason, the dropped plays would be missing: the worker would find a gap and reopen the partition.
        """
        for partition, task in tasks.items():
            # During these seeks a task can end, and the partition's next task has done its own seek by then.
            if self._sink.fetchable().get(partition) is task:
                await self.seek_source(partition, task.next_fetch)

    async def perform_seek(self) -> None:
        """Does nothing. Faust would seek to the committed offsets after each rebalance; partition tasks seek when they open."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stops the flow, then closes the partitions. When this returns, aiokafka rejoins the group."""
        self.stop_flow()
        await self._sink.partitions_revoked(self._plays(revoked))
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Lets the worker open the partitions in the background, because aiokafka sends no heartbeats until this returns."""
        await super().on_partitions_assigned(assigned, generation_id)
        self._sink.partitions_assigned(self._plays(assigned))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Does nothing. Faust would check its event path, which plays do not take; see stream.ops.liveness."""

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
        if not partitions:  # a broker that has just started; the number would go into the marker
            raise BrokerError(f"the broker reports no partitions of topic {source.topic}")
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
        """See stream.delivery.partition.SourceConsumer. Does nothing if the partition is no longer assigned."""
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
        assigned = sources & consumer.assignment()
        # Without a partition, one end is read all the same: whether the broker answers must be known.
        ends = await consumer.end_offsets(assigned or {TopicPartition(self._topic, 0)})
        return {source.partition: (await consumer.position(source), ends[source]) for source in assigned}

    async def membership(self, partition: int) -> Membership:
        """See stream.delivery.partition.SourceConsumer. YES if the coordinator accepts a heartbeat of this generation."""
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
                is_accepted = await coordinator._do_heartbeat()
        except (TimeoutError, KafkaError):
            return Membership.UNKNOWN
        if not unchanged():
            return Membership.NO
        return Membership.YES if is_accepted else Membership.UNKNOWN

    async def _stay_active(self) -> None:
        # Without a fetch for max_poll_interval, aiokafka leaves the group. A long restore fetches no plays.
        with self._thread.aiokafka_consumer._subscription.fetch_context():
            pass


class BatchTransport(driver.Transport):
    """Faust's transport with a BatchConsumer. Set it as ``app.transport`` before the app starts."""

    Consumer = BatchConsumer

    #: Where fetched plays go; set before the app starts.
    sink: PlaysSink

    def __init__(self, *args: Any, settings: Settings, rebalance_timeout_s: float, **kwargs: Any) -> None:
        check_private_names()
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.rebalance_timeout_s = rebalance_timeout_s


def _positions(consumer: aiokafka.AIOKafkaConsumer, partitions: set[TP]) -> dict[TP, int]:
    """The consumer's positions in the assigned partitions; one without a valid position is left out."""
    assigned = partitions & consumer.assignment()
    if not assigned:
        return {}
    assignment = consumer._subscription.subscription.assignment
    states = {tp: assignment.state_value(tp) for tp in assigned}
    return {tp: state.position for tp, state in states.items() if state.has_valid_position}
