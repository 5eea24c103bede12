"""Reads intents and recommendations into the members' states, as a member of the gateways' consumer group.

    assigned ─ partition is new here ─ seek to an hour ago (a setting), by the records' times ─ read to the end ─▶ ready
             └ it was here before ──── goes on where it was ───────────────────────────────────────────────────▶ ready

Nothing is committed: what a gateway knows of a member comes from the log and the store alone. A partition that is taken away is
dropped with its members, and their streams end, so that their readers find the new owner.

A gateway that cannot reach the broker is not told that its partitions were given to others. So it asks the broker something every
two seconds, and without an answer for as long as the group waits for a silent member, no partition is ready.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Set
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, StateError
from stream.gateway.member_states import Kind, MemberStates
from stream.gateway.ownership import Ownership, sharing_assignor
from stream.kafka.clients import close_consumer, closed_on_failure, consumer_options
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
_TOUCH_S = 2.0
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
        self._to_open: set[TopicPartition] = set()
        self.is_member = False
        self._answered_s = clock()

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
        """Whether the broker has been silent for so long that the group may have given the partitions to others."""
        return self._clock() - self._answered_s > SESSION_TIMEOUT_S

    @property
    def ready_partitions(self) -> list[int]:
        """The partitions that are ready."""
        return [number for number in sorted(self._ownership.own) if self.is_ready(number)]

    async def run(self) -> None:
        """Reads until it is cancelled; retries when the broker fails.

        Raises: StateError when a topic has another number of partitions than at the start.
        """
        await first_to_end(self._keep_reading(), self._keep_in_touch())

    async def _keep_in_touch(self) -> None:
        was_cut_off = False
        while True:
            await self._touch()
            is_cut_off = self.is_cut_off
            if is_cut_off and not was_cut_off:
                logger.warning("no answer of the broker for %.0f s: not ready, streams are ended", SESSION_TIMEOUT_S)
                self._on_moved(())
            elif was_cut_off and not is_cut_off:
                logger.info("the broker answers again")
            was_cut_off = is_cut_off
            self._check_partitions()
            await asyncio.sleep(_TOUCH_S)

    async def _touch(self) -> None:
        try:
            async with asyncio.timeout(_TOUCH_S):
                await self._consumer.topics()
        except (TimeoutError, KafkaError, OSError):
            return
        self._answered_s = self._clock()

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
                if self._to_open:
                    await self._open(frozenset(self._to_open))
                await self._read()
            except KafkaError as error:
                logger.warning("%s cannot be read; retrying: %r", " and ".join(self._kinds), error)
                await asyncio.sleep(_RETRY_S)

    async def _read(self) -> None:
        fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
        for source, records in fetched.items():
            if source not in self._next:  # taken away while it was being fetched
                continue
            kind = self._kinds[source.topic]
            for record in records:
                self._on_read(kind, self._states.take(kind, source.partition, record.key, record.value))
            self._next[source] = records[-1].offset + 1
        for source, end in list(self._until.items()):
            # The position passes offsets without records, such as those of a transaction's end.
            if self._next[source] >= end or await self._position(source) >= end:
                del self._until[source]
                if self.is_ready(source.partition):
                    logger.info("partition %d is ready; members in memory: %d", source.partition, len(self._states))

    async def _position(self, source: TopicPartition) -> int:
        return int(await self._consumer.position(source)) if source in self._consumer.assignment() else -1

    async def _open(self, sources: Set[TopicPartition]) -> None:
        """Begins to read partitions that are new here, from the read-back time on."""
        since_ms = int((time.time() - self._settings.gateway_read_back_s) * 1000)
        ends = await self._consumer.end_offsets(list(sources))
        found = await self._consumer.offsets_for_times(dict.fromkeys(sources, since_ms))
        for source in sources & self._to_open & self._consumer.assignment():
            at = found.get(source)
            begin = ends[source] if at is None else at.offset
            self._consumer.seek(source, begin)
            self._next[source] = begin
            if begin < ends[source]:
                self._until[source] = ends[source]
            self._to_open.discard(source)
            self._consumer.resume(source)

    def assigned(self, sources: Collection[TopicPartition]) -> None:
        """The group has shared the partitions: those that were here go on, new ones are opened, the others are dropped."""
        self.is_member = True
        new = {source for source in sources if source not in self._next}
        for source in sources:
            if source not in new:
                self._consumer.seek(source, self._next[source])
        if new:
            self._consumer.pause(*new)  # until it is known where to begin
        self._to_open = new
        for source in [source for source in self._next if source not in sources]:
            del self._next[source]
            self._until.pop(source, None)
        own = {source.partition for source in sources}
        self._states.keep_partitions(own)
        self._on_moved(own)
        numbers = ", ".join(map(str, sorted(own))) or "none"
        logger.info("partitions of this gateway: %s; gateways: %d", numbers, self._ownership.num_gateways)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, reader: StateReader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        # What is here stays until the next assignment says whose it is: most of it comes back.
        pass

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._reader.assigned(assigned)
