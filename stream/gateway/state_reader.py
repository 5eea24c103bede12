"""Reads intents and recommendations into the members' states, as a member of the gateways' consumer group.

    assigned ─ partition is new here ─ seek to an hour ago (a setting), by the records' times ─ read to the end ─▶ ready
             ├ it was here before a cut ─ goes on where it was, and reads to the end ──────────────────────────▶ ready
             └ it was here just now ──── goes on where it was ─────────────────────────────────────────────────▶ ready

Nothing is committed: what a gateway knows of a member comes from the log and the store alone. A partition that is taken away is
dropped with its members, and their streams end, so that their readers find the new owner.

A gateway that cannot reach the broker is not told that its partitions were given to others. So it asks the broker something every
second. Without an answer for as long as the group waits for a silent member, no partition is ready, until the group has said anew
whose each is: for that it joins again. The same holds for a process that stood still, and for one that joins for so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest

from intentrec_core.errors import BrokerError, StateError
from stream.gateway.member_states import Kind, MemberStates
from stream.gateway.ownership import Ownership, sharing_assignor
from stream.kafka.clients import close_consumer, closed_on_failure, consumer_options, mark_retrieved
from stream.ops.metrics import ReadOutcome
from stream.ops.process_end import first_to_end

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

_START_DEADLINE_S = 30.0
_POLL_MS = 200
_RETRY_S = 1.0
#: Some milliseconds of work between two turns of the event loop, so that requests go on while an hour is read back.
_MAX_RECORDS = 1000
#: Kafka's lowest. A gateway that is taken for dead too early loses nothing but the time to read its partitions back.
SESSION_TIMEOUT_S = 6.0
#: How often the broker is asked, and how long its answer may take.
_TOUCH_S = 1.0
#: So many nodes are asked at once, and one answer is enough: a node that is down is no reason to be cut off.
_NUM_ASKED = 4
#: How long a partition may take to say where to begin: a search by time in a cold index takes seconds.
_OPEN_S = 20.0
_METADATA_MAX_AGE_MS = 10_000
#: Longer than a join takes. A node that is silent holds up a refresh of the metadata for so long.
_REQUEST_TIMEOUT_MS = 10_000
#: Members of the group have nothing to finish before they join again: they do so at their next heartbeat.
_REBALANCE_TIMEOUT_S, _HEARTBEAT_S = 4.0, 1.0


class StateReader:
    """An async context manager, owned by the event loop. :meth:`run` reads until it is cancelled.

    ``on_moved``: called with the partitions that this gateway has from now on, once others were taken away; with none when it is
    cut off from the broker.
    """

    def __init__(
        self,
        settings: Settings,
        ownership: Ownership,
        states: MemberStates,
        *,
        on_moved: Callable[[Collection[int]], None] = lambda own: None,
        on_read: Callable[[Kind, ReadOutcome], None] = lambda kind, outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._ownership, self._states = settings, ownership, states
        self._on_moved, self._on_read, self._clock = on_moved, on_read, clock
        self._kinds = {settings.intents_topic: Kind.INTENTS, settings.recommendations_topic: Kind.RECOMMENDATIONS}
        #: Where to go on in each partition, and up to where it has to be read before it is ready.
        self._next: dict[TopicPartition, int] = {}
        self._until: dict[TopicPartition, int] = {}
        #: Where each partition was when this gateway was cut off: it goes on there, and is ready once it has caught up.
        self._left_at: dict[TopicPartition, int] = {}
        self._to_open: set[TopicPartition] = set()
        self._is_anything_to_open = asyncio.Event()
        #: How often each partition has come to this gateway.
        self._num_times_given: Counter[TopicPartition] = Counter()
        self.is_member = False
        self._must_join = False
        self._answered_s = clock()
        self._joining_since_s: float | None = None

    async def __aenter__(self) -> Self:
        """Connects and joins the group.

        Raises: BrokerError when the broker cannot be reached.
        """
        settings = self._settings
        topics = list(self._kinds)
        self._consumer = AIOKafkaConsumer(
            **consumer_options(settings, "gateway"),
            group_id=f"{settings.app_id}-gateway",
            auto_offset_reset="earliest",
            partition_assignment_strategy=(sharing_assignor(self._ownership, topics),),
            session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
            heartbeat_interval_ms=int(_HEARTBEAT_S * 1000),
            rebalance_timeout_ms=int(_REBALANCE_TIMEOUT_S * 1000),
            fetch_max_wait_ms=_POLL_MS,
            metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        self._consumer.subscribe(topics, listener=_Listener(self))
        async with closed_on_failure(self._consumer):
            try:
                async with asyncio.timeout(_START_DEADLINE_S):
                    await self._consumer.start()
            except (TimeoutError, KafkaError) as error:
                raise BrokerError(f"the broker {settings.broker} cannot be read: {error!r}; is it up?") from error
        self._answered_s = self._clock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the group, so that the others take over at once."""
        await close_consumer(self._consumer)

    def is_ready(self, partition: int) -> bool:
        """Whether the partition is this gateway's, and was read to where its topics ended when it came."""
        parts = [TopicPartition(topic, partition) for topic in self._kinds]
        return not self.is_cut_off and all(part in self._next and part not in self._until for part in parts)

    @property
    def is_cut_off(self) -> bool:
        """Whether the broker, or the group, has said nothing for so long that the partitions may be others'."""
        now_s = self._clock()
        since_s = self._answered_s if self._joining_since_s is None else min(self._answered_s, self._joining_since_s)
        return now_s - since_s > SESSION_TIMEOUT_S

    @property
    def ready_partitions(self) -> list[int]:
        """The partitions that are ready."""
        return [number for number in sorted(self._ownership.own) if self.is_ready(number)]

    async def run(self) -> None:
        """Reads until it is cancelled; retries when the broker fails.

        Raises: StateError when a topic has another number of partitions than at the start.
        """
        await first_to_end(self._keep_reading(), self._keep_opening(), self._keep_in_touch())

    async def _keep_in_touch(self) -> None:
        while True:
            self._check_contact()  # before asking too: this process may have stood still
            await self._touch()
            self._check_contact()
            self._check_partitions()
            await asyncio.sleep(_TOUCH_S)

    def _check_contact(self) -> None:
        if self.is_cut_off and not self._must_join:
            logger.warning("no answer of the broker or group for %.0f s: not ready, streams end", SESSION_TIMEOUT_S)
            self._consumer._coordinator.request_rejoin()
            self._leave()

    def _leave(self) -> None:
        """No partition is this gateway's until the group says so again."""
        self._must_join = True
        self._left_at |= self._next
        for places in (self._next, self._until, self._to_open):
            places.clear()
        self._on_moved(())

    def _note_answer(self) -> None:
        self._check_contact()  # before it counts: it may have waited while this process stood still
        self._answered_s = self._clock()

    async def _touch(self) -> None:
        """Asks a few nodes for their versions: that waits for no refresh of the metadata, and for no leader."""
        client = self._consumer._client
        nodes = [node.nodeId for node in client.cluster.brokers()]
        asked = random.sample(nodes, min(_NUM_ASKED, len(nodes)))
        asking = [asyncio.ensure_future(client.send(node, ApiVersionRequest())) for node in asked]
        try:
            async with asyncio.timeout(_TOUCH_S):
                for answer in asyncio.as_completed(asking):
                    with contextlib.suppress(KafkaError, OSError):
                        await answer
                        self._note_answer()
                        return
        except TimeoutError:
            pass
        finally:
            for answer in asking:
                answer.add_done_callback(mark_retrieved)
                answer.cancel()

    def _check_partitions(self) -> None:
        """Raises: StateError."""
        for topic in self._kinds:
            known = self._consumer.partitions_for_topic(topic)
            if known and len(known) != self._ownership.num_partitions:
                raise StateError(
                    f"{topic} has {len(known)} partitions now, {self._ownership.num_partitions} when the gateway started: "
                    "start it again"
                )

    async def _keep_reading(self) -> None:
        while True:
            try:
                await self._read()
            except KafkaError as error:
                logger.warning("%s cannot be read; retrying: %r", " and ".join(self._kinds), error)
                await asyncio.sleep(_RETRY_S)

    async def _keep_opening(self) -> None:
        opening: set[TopicPartition] = set()

        async def keep_opening(source: TopicPartition) -> None:
            while source in self._to_open:
                await self._open(source)
                if source in self._to_open:
                    await asyncio.sleep(_RETRY_S)
            opening.discard(source)

        try:
            async with (
                asyncio.TaskGroup() as group
            ):  # each by itself: one that takes long holds up none that comes later
                while True:
                    await self._is_anything_to_open.wait()
                    self._is_anything_to_open.clear()
                    for source in self._to_open - opening:
                        opening.add(source)
                        group.create_task(keep_opening(source))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # as it is: its exit code is the process's

    async def _read(self) -> None:
        fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
        for source, records in fetched.items():
            if source not in self._next:  # taken away while it was being fetched
                continue
            kind = self._kinds[source.topic]
            take = self._states.take_back if source in self._until else self._states.take
            for record in records:
                self._on_read(kind, take(kind, source.partition, record.key, record.value))
            self._next[source] = records[-1].offset + 1
        if fetched:
            self._note_answer()
        for source, end in list(self._until.items()):
            # The position passes offsets without records, such as those of a transaction's end.
            is_read = self._next.get(source, -1) >= end or await self._position(source) >= end
            if is_read and self._until.get(source) == end:  # not taken away meanwhile, or opened anew up to another end
                del self._until[source]
                if self.is_ready(source.partition):
                    logger.info("partition %d is ready; members in memory: %d", source.partition, len(self._states))

    async def _position(self, source: TopicPartition) -> int:
        """The position of a partition; -1 where it is not known at once: others are not to wait for it."""
        if source not in self._next or source not in self._consumer.assignment():
            return -1
        try:
            async with asyncio.timeout(_POLL_MS / 1000):
                return int(await self._consumer.position(source))
        except TimeoutError:
            return -1

    async def _open(self, source: TopicPartition) -> None:
        """Begins to read a partition that is new here, from the read-back time on; later, where it does not answer."""
        since_ms = int((time.time() - self._settings.gateway_read_back_s) * 1000)
        times_given = self._num_times_given[source]
        try:
            async with asyncio.timeout(_OPEN_S):
                end = (await self._consumer.end_offsets([source]))[source]
                begin = self._left_at.get(source)
                if begin is None:
                    at = (await self._consumer.offsets_for_times({source: since_ms})).get(source)
                    begin = end if at is None else at.offset
        except (TimeoutError, KafkaError) as error:
            logger.warning("partition %d of %s cannot be read yet: %r", source.partition, source.topic, error)
            return
        if times_given != self._num_times_given[source]:  # it was another's meanwhile: its end is further on by now
            return
        if source not in self._to_open or source not in self._consumer.assignment():
            return
        self._left_at.pop(source, None)
        self._consumer.seek(source, begin)
        self._next[source] = begin
        if begin < end:
            self._until[source] = end
        self._to_open.discard(source)
        self._consumer.resume(source)

    def revoked(self) -> None:
        """The group shares the partitions anew. What is here stays until it says whose it is: most of it comes back.

        Where the group no longer knows this gateway, it has given them away already.
        """
        self._joining_since_s = self._clock()
        if self.is_member and not self._consumer._coordinator.member_id:
            self._leave()

    def assigned(self, sources: Collection[TopicPartition]) -> None:
        """The group has shared the partitions: those that were here go on, new ones are opened, the others are dropped.

        An answer that waited while this process stood still says nothing of now: the group is asked again.
        """
        if self.is_member and self.is_cut_off:
            self._check_contact()
            self._consumer._coordinator.request_rejoin()
            self._joining_since_s = self._answered_s = self._clock()
            return
        self.is_member, self._must_join, self._joining_since_s = True, False, None
        self._answered_s = self._clock()
        new = {source for source in sources if source not in self._next}
        for source in sources:
            if source not in new:
                self._consumer.seek(source, self._next[source])
        if new:
            self._consumer.pause(*new)  # until it is known where to begin
        self._num_times_given.update(new - self._to_open)
        self._to_open = new
        self._is_anything_to_open.set()
        for places in (self._next, self._until, self._left_at):
            for source in [source for source in places if source not in sources]:
                del places[source]
        own = {source.partition for source in sources}
        self._states.keep_partitions(own)
        self._on_moved(own)
        numbers = ", ".join(map(str, sorted(own))) or "none"
        logger.info("partitions of this gateway: %s; gateways: %d", numbers, self._ownership.num_gateways)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, reader: StateReader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._reader.revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._reader.assigned(assigned)
