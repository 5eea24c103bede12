"""From the plays topic into the event log: every partition, read committed, positions from the log's own files.

    getmany ──▶ decode as the worker does ──▶ buffer ──▶ segments (in a thread, because an fsync may take a second)
        └─ order to forget a member ──▶ noted in the log, carried out before the next training run reads it

A play the worker would set aside as invalid is left out here too. While the disk refuses, nothing more is read, the plays at
hand stay buffered, and the next attempt goes on where this one stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from intentrec_core.domain.spec import Domain, FieldKind, FilterKind, value_text
from intentrec_core.errors import BrokerError, StateError
from intentrec_core.history.history import EventLayout
from intentrec_core.plays.table import PlayRow
from stream.delivery.lag_monitor import look_deadline_s, tells_where_plays_end
from stream.delivery.start_offset import ORDERS_TOO
from stream.kafka.closing import close_consumer
from stream.kafka.header_names import read_any_header_name
from stream.kafka.topics import count_partitions
from stream.ops.liveness import Waiting
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_erasure import Forgotten
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay
from stream.wire.codec import RejectedPlay, decode_play
from stream.wire.erasure_record import ErasureRequest, home_partition, is_erasure_request, read_erasure_request
from stream.wire.records import SourceRecord

logger = logging.getLogger(__name__)

POLL_MS = 500
#: Decoded on the event loop: 5,000 take some 50 ms, in which health and group membership wait.
MAX_POLL_PLAYS = 5_000
MAX_BUFFERED_PLAYS = 50_000
RETRY_S = 1.0
COMPARE_DEADLINE_S = 10.0


class PlayReader:
    """Records to plays at rest, or None for what the worker sets aside.

    ``num_partitions`` is None where producers may partition by anything.
    """

    def __init__(self, domain: Domain, num_partitions: int | None) -> None:
        self._layout = EventLayout(domain)
        self._max_future_ms = int(domain.max_future_s * 1000)
        self._num_partitions = num_partitions
        self._number_keys = {f.key for f in domain.event_fields if f.kind is FieldKind.BUCKETED}
        self._number_keys |= {f.event_key for f in domain.event_filters if f.kind is FilterKind.AT_MOST}

    def read(self, record: SourceRecord) -> LoggedPlay | None:
        """The play of a record. Cost: about 10 µs."""
        play = decode_play(record, self._max_future_ms)
        if isinstance(play, RejectedPlay) or is_erasure_request(record) or not self._is_home(record, play.user_id):
            return None
        try:
            # What cannot be packed now could not be packed when training reads it either.
            self._layout.pack(
                item_id=play.item_id,
                event_id=play.event_id,
                ts_ms=play.ts_ms,
                duration_s=play.duration_s,
                attributes=play.attributes,
            )
        except (ValueError, OverflowError):
            return None
        texts = {key: self._text(key, value) for key, value in play.attributes.items() if value is not None}
        action = texts.pop("action", None)
        row = PlayRow(
            play.event_id,
            play.user_id,
            play.item_id,
            play.ts_ms,
            action,
            play.duration_s,
            play.session_id,
            texts or None,
        )
        return LoggedPlay(record.offset, record.timestamp, row)

    def forgotten(self, record: SourceRecord) -> str | None:
        """The user id of the member whom a record orders to forget, as the worker understands it."""
        order = read_erasure_request(record) if is_erasure_request(record) else None
        return order.user_id if isinstance(order, ErasureRequest) and self._is_home(record, order.user_id) else None

    def _is_home(self, record: SourceRecord, user_id: str) -> bool:
        num_partitions = self._num_partitions
        return num_partitions is None or home_partition(user_id.encode(), num_partitions) == record.partition

    def _text(self, key: str, value: Any) -> str:
        """A value as text that packs to the same bytes as the value itself."""
        if key in self._number_keys:
            return repr(float(value))
        return value_text(value)


class LogFollower:
    """Reads the topic into the log until cancelled. Owned by the event loop.

    ``on_trouble`` is told a line when the log cannot be written, and None when it can again.
    """

    def __init__(
        self,
        settings: Settings,
        domain: Domain,
        writer: EventLogWriter,
        metrics: Metrics,
        on_trouble: Callable[[str | None], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = settings.plays_topic
        self._domain = domain
        self._writer = writer
        self._metrics = metrics
        self._on_trouble = on_trouble
        self._flush_interval_s = settings.event_log_flush_s
        self._clock = clock
        self._last_flush_s = clock()
        # One thread: a flush that was cancelled goes on, and the next one waits for it.
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="event-log")
        self._flush_wanted: list[asyncio.Future[None]] = []
        self._reader = PlayReader(domain, None)
        self._last_poll_s = clock()
        self._behind = Waiting(clock)
        self._took_all = True
        read_any_header_name()
        self._consumer = AIOKafkaConsumer(
            **settings.connection(),
            client_id=f"{settings.app_id}-trainer",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )

    async def start(self) -> None:
        """Connects, and takes up every partition where the log ends.

        Raises: BrokerError when the broker cannot be reached; StateError when topic and log are not of one another.
        """
        try:
            await self._consumer.start()
            await self._take_up()
        except KafkaError as error:
            raise BrokerError(f"topic {self._topic} cannot be read: {error!r}; is the broker up?") from error

    async def stop(self) -> None:
        """Flushes what the disk takes and disconnects; plays that stay behind are read again by the next trainer.

        Call it when :meth:`run` has ended.
        """
        await self._flush()
        self._disk.shutdown()
        for waiting in self._flush_wanted:
            waiting.cancel()
        await close_consumer(self._consumer)

    async def run(self) -> None:
        """Follows the topic. Only StateError, DataError and cancellation end it."""
        while True:
            self._last_poll_s = self._clock()
            try:
                batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_PLAYS)
            except OffsetOutOfRangeError:
                # Retention has caught up with us: begin anew at what the topic still holds.
                while not await self._flush():
                    await self._rest()
                try:
                    await self._take_up()
                except (
                    KafkaError,
                    BrokerError,
                ) as error:  # the next poll finds the same offset out of range, and tries again
                    logger.warning("plays cannot be taken up for now: %r", error)
                    await self._rest()
                continue
            except KafkaError as error:
                logger.warning("plays cannot be read for now: %r", error)
                await self._rest()
                continue
            self._took_all = sum(map(len, batches.values())) < MAX_POLL_PLAYS
            for partition, records in batches.items():
                self._append(partition.partition, records)
                self._behind.end(partition.partition)
            while self._is_due() and not await self._flush():
                await self._rest()

    async def logged(self) -> None:
        """Returns when everything read before the call is on disk, and no play of a member forgotten before it is.

        Waits while the disk refuses.
        """
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush_wanted.append(waiting)
        await waiting

    async def watch_lag(self) -> None:
        """Compares the topic's ends with what was read, until cancelled: a consumer that is stuck does not know it is."""
        deadline_s = look_deadline_s(self._settings)
        while True:
            await asyncio.sleep(deadline_s)
            assigned = self._consumer.assignment()
            try:
                async with asyncio.timeout(deadline_s):
                    ends = await self._consumer.end_offsets(list(assigned))
                    behind = {p.partition for p, end in ends.items() if await self._consumer.position(p) < end}
                if not self._took_all:
                    # The last poll has left plays behind that were there: a partition may wait for its turn.
                    behind = set()
            except (TimeoutError, KafkaError):
                # A broker that is away is not a trainer that hangs.
                behind = {p.partition for p in assigned}
                if not await tells_where_plays_end(self._settings, deadline_s, behind):
                    behind = set()
            self._behind.only(behind)

    def stalled_s(self) -> float:
        """Seconds without a sign of progress: of the loop, or of plays that are there and do not come."""
        return max(self._clock() - self._last_poll_s, self._behind.longest_s())

    async def _flush(self) -> bool:
        """Makes what is buffered durable and merges small segments; False when the disk refuses."""
        num_buffered = self._writer.num_buffered
        wanted, self._flush_wanted = self._flush_wanted, []
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._write, bool(wanted))
        except OSError as error:
            self._flush_wanted = wanted + self._flush_wanted
            logger.warning("event log %s cannot be written, will try again: %s", self._writer.root, error)
            self._on_trouble(f"the event log cannot be written: {error.strerror or error}")
            return False
        finally:
            written = num_buffered - self._writer.num_buffered
            self._metrics.trainer_logged_plays.inc(written)
        self._last_flush_s = self._clock()
        self._on_trouble(None)
        for waiting in wanted:
            if not waiting.done():
                waiting.set_result(None)
        return True

    async def _rest(self) -> None:
        self._last_poll_s = self._clock()
        self._behind.only(())  # it waits on purpose, and says so elsewhere
        await asyncio.sleep(RETRY_S)

    def _write(self, purge: bool) -> None:
        if self._writer.flush():
            self._writer.merge()
        if purge and (num_gone := self._writer.purge()):
            logger.info("%d plays of members who were forgotten left the event log", num_gone)

    def _is_due(self) -> bool:
        num_buffered = self._writer.num_buffered
        is_old = self._clock() - self._last_flush_s >= self._flush_interval_s
        return num_buffered >= MAX_BUFFERED_PLAYS or (num_buffered > 0 and is_old) or bool(self._flush_wanted)

    def _append(self, partition: int, records: Sequence[SourceRecord]) -> None:
        plays: list[LoggedPlay] = []
        for record in records:
            if (user_id := self._reader.forgotten(record)) is not None:
                self._writer.append(partition, plays, record.offset + 1)
                self._writer.forget(Forgotten(partition, record.offset, user_id))
                plays = []
            elif (play := self._reader.read(record)) is not None:
                plays.append(play)
        self._writer.append(partition, plays, records[-1].offset + 1)

    async def _take_up(self) -> None:
        counts = await count_partitions(self._settings, self._topic)
        if self._topic not in counts:
            raise BrokerError(f"no topic {self._topic} on {self._settings.broker}; create the topics: intentrec topics")
        partitions = [TopicPartition(self._topic, number) for number in range(counts[self._topic])]
        any_partitioner = self._settings.plays_partitioner == "any"
        self._reader = PlayReader(self._domain, None if any_partitioner else len(partitions))
        self._consumer.assign(partitions)
        beginnings = await self._consumer.beginning_offsets(partitions)
        await self._compare(beginnings)
        for partition in partitions:
            position = self._writer.next_offset(partition.partition)
            if missed := self._writer.skip_to(partition.partition, beginnings[partition]):
                # A log that is new is not missing anything.
                log = logger.warning if position else logger.info
                log(
                    "partition %d: %d plays were deleted before they were logged%s",
                    partition.partition,
                    missed,
                    ORDERS_TOO if position else "",
                )
            self._consumer.seek(partition, self._writer.next_offset(partition.partition))

    async def _compare(self, beginnings: Mapping[TopicPartition, int]) -> None:
        """Whether the newest plays logged are on the topic at their offsets: a topic made anew may be long again.

        The topic's end is not asked for: the embedded broker gives that of its last batch's first record.
        """
        newest = await asyncio.to_thread(EventLog(self._writer.root, self._topic).newest_plays)
        for number, play in newest.items():
            partition = TopicPartition(self._topic, number)
            if partition not in beginnings:
                raise StateError(f"the event log has a partition {number}, topic {self._topic} has not. {self._remedy}")
            if play.offset < beginnings[partition]:
                continue
            self._consumer.seek(partition, play.offset)
            found = await self._play_at(partition, play.offset)
            if found != play.event_id:
                raise StateError(
                    f"partition {number}, offset {play.offset}: the event log has play {play.event_id}, topic {self._topic} "
                    f"has {found or 'none'}: it was created anew. {self._remedy}"
                )

    async def _play_at(self, partition: TopicPartition, offset: int) -> str | None:
        """Event id of the play at an offset the consumer was sought to, None when there is none."""
        try:
            batches = await self._consumer.getmany(partition, timeout_ms=int(COMPARE_DEADLINE_S * 1000), max_records=1)
        except OffsetOutOfRangeError:
            return None
        for record in batches.get(partition, ()):
            found = self._reader.read(record)
            if record.offset == offset and found is not None:
                return found.play.event_id
        return None

    @property
    def _remedy(self) -> str:
        return f"Move {self._writer.root} aside, or give event_log_dir another folder"
