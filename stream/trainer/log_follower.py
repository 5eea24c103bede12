"""Copies the plays topic into the event log: all partitions, read committed, positions taken from the log's own files.

    getmany ──▶ decode as the worker does ──▶ buffer ──▶ segments (in a thread, because an fsync may take a second)
        └─ erasure request ──▶ marker in the log, carried out before the next training run reads the log

Plays that the worker would dead-letter are skipped here too. While writes fail, the follower stops reading and keeps
its plays buffered; the next attempt continues where this one stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from intentrec_core.domain.spec import Domain, value_text
from intentrec_core.errors import BrokerError, StateError
from intentrec_core.history.history import EventLayout
from intentrec_core.plays.table import PlayRow
from stream.kafka.broker_checks import can_read_end_offsets, look_deadline_s
from stream.kafka.clients import close_consumer, consumer_options
from stream.kafka.topics import count_partitions
from stream.ops.liveness import Waiting
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_erasure import PendingErasure
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay
from stream.wire.codec import RejectedPlay, decode_play
from stream.wire.erasure_record import RESEND_ERASURES, ErasureRequest, is_erasure_request, read_erasure_request
from stream.wire.records import SourceRecord
from stream.wire.routing import home_partition

logger = logging.getLogger(__name__)

POLL_MS = 500
#: Decoded on the event loop: 5,000 plays take some 50 ms, during which health checks and group membership wait.
MAX_POLL_PLAYS = 5_000
MAX_BUFFERED_PLAYS = 50_000
RETRY_S = 1.0
COMPARE_DEADLINE_S = 10.0


class PlayReader:
    """Turns records into plays to store; None for a record that the worker would dead-letter.

    ``num_partitions`` is None if producers may use any partitioner.
    """

    def __init__(self, domain: Domain, num_partitions: int | None) -> None:
        self._layout = EventLayout(domain)
        self._num_partitions = num_partitions

    def read(self, record: SourceRecord) -> LoggedPlay | None:
        """The play of a record. Cost: about 10 µs."""
        domain = self._layout.domain
        play = decode_play(record, domain.earliest_ms, domain.max_future_ms)
        if isinstance(play, RejectedPlay) or is_erasure_request(record) or not self._is_home(record, play.user_id):
            return None
        try:
            # A play that cannot be packed now could not be packed either when training reads the log.
            self._layout.pack(
                item_id=play.item_id,
                event_id=play.event_id,
                ts_ms=play.ts_ms,
                duration_s=play.duration_s,
                attributes=play.attributes,
            )
        except (ValueError, OverflowError):
            return None
        # As texts the values pack to the same bytes.
        texts = {key: value_text(value) for key, value in play.attributes.items() if value is not None}
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

    def erased_user(self, record: SourceRecord) -> str | None:
        """The user id of an erasure request that the worker would carry out; None for any other record."""
        request = read_erasure_request(record) if is_erasure_request(record) else None
        if isinstance(request, ErasureRequest) and self._is_home(record, request.user_id):
            return request.user_id
        return None

    def _is_home(self, record: SourceRecord, user_id: str) -> bool:
        num_partitions = self._num_partitions
        return num_partitions is None or home_partition(user_id.encode(), num_partitions) == record.partition


class LogFollower:
    """Copies the topic into the log until cancelled. Owned by the event loop.

    ``on_log_error`` is called with one line when the log cannot be written, and with None once it can be written again.
    ``on_plays`` is called with the plays read from a partition, and the offset after them; plays that the log has already may
    come again.
    """

    def __init__(
        self,
        settings: Settings,
        domain: Domain,
        writer: EventLogWriter,
        metrics: Metrics,
        on_log_error: Callable[[str | None], None],
        *,
        on_plays: Callable[[int, Sequence[LoggedPlay], int], None] = lambda partition, plays, next_offset: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = settings.plays_topic
        self._domain = domain
        self._writer = writer
        self._metrics = metrics
        self._on_log_error = on_log_error
        self._on_plays = on_plays
        self._flush_interval_s = settings.event_log_flush_s
        self._clock = clock
        self._last_flush_s = clock()
        # One thread: a cancelled flush keeps running, and the next flush waits for it.
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="event-log")
        self._flush_waiters: list[asyncio.Future[None]] = []
        self._reader = PlayReader(domain, None)
        self._last_poll_s = clock()
        self._lagging = Waiting(clock)
        self._poll_was_full = False
        #: Whether the last look at the ends of the topic failed.
        self.is_cut_off = False
        self._consumer = AIOKafkaConsumer(
            **consumer_options(settings, "trainer"),
            auto_offset_reset="none",
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )

    async def start(self) -> None:
        """Connects, and resumes every partition where the log ends.

        Raises: BrokerError if the broker cannot be reached; StateError if the log does not belong to this topic.
        """
        try:
            await self._consumer.start()
            await self._resume()
        except KafkaError as error:
            raise BrokerError(f"topic {self._topic} cannot be read: {error!r}; is the broker up?") from error

    async def stop(self) -> bool:
        """Flushes if the disk allows it, and disconnects. Returns whether all plays read are on disk: the next trainer reads the
        others again.

        Call it after :meth:`run` has ended.
        """
        is_flushed = await self._flush()
        self._disk.shutdown()
        for waiter in self._flush_waiters:
            waiter.cancel()
        await close_consumer(self._consumer)
        return is_flushed

    async def run(self) -> None:
        """Follows the topic until cancelled; only StateError and DataError end it otherwise."""
        while True:
            self._last_poll_s = self._clock()
            try:
                batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_POLL_PLAYS)
            except OffsetOutOfRangeError:
                # Retention has deleted the plays at our position: resume at the first offset that the topic still holds.
                while not await self._flush():
                    await self._pause()
                try:
                    await self._resume()
                except (KafkaError, BrokerError) as error:
                    # The next poll finds the same offset out of range, and retries.
                    logger.warning("cannot resume reading plays, will retry: %r", error)
                    await self._pause()
                continue
            except KafkaError as error:
                logger.warning("cannot read plays, will retry: %r", error)
                await self._pause()
                continue
            self._poll_was_full = sum(map(len, batches.values())) >= MAX_POLL_PLAYS
            for partition, records in batches.items():
                self._append(partition.partition, records)
                self._lagging.end(partition.partition)
            while self._is_flush_due() and not await self._flush():
                await self._pause()

    async def flushed(self) -> None:
        """Returns once everything read before the call is on disk, and every erasure request read before it is carried out.

        Waits while writes fail.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flush_waiters.append(waiter)
        await waiter

    async def watch_lag(self) -> None:
        """Compares the topic's end offsets with the read positions, until cancelled: a stuck consumer reports no error."""
        deadline_s = look_deadline_s(self._settings)
        while True:
            await asyncio.sleep(deadline_s)
            assigned = self._consumer.assignment()
            try:
                async with asyncio.timeout(deadline_s):
                    ends = await self._consumer.end_offsets(list(assigned))
                    lagging = {p.partition for p, end in ends.items() if await self._consumer.position(p) < end}
                if self._poll_was_full:
                    # The last poll could not return all available plays: a partition may just be waiting its turn.
                    lagging = set()
            except (TimeoutError, KafkaError):
                is_cut_off = True
                # An unreachable broker is not a hanging trainer: restarting the trainer would not help.
                lagging = {p.partition for p in assigned}
                if not await can_read_end_offsets(self._settings, deadline_s, lagging):
                    lagging = set()
            else:
                is_cut_off = False
            self.is_cut_off = is_cut_off
            self._metrics.broker_away.set(is_cut_off)
            self._lagging.only(lagging)

    def stalled_s(self) -> float:
        """Seconds without progress, of the poll loop or of a partition that has plays to read."""
        return max(self._clock() - self._last_poll_s, self._lagging.longest_s())

    async def _flush(self) -> bool:
        """Makes the buffered plays durable and merges small segments; returns False if a write fails."""
        num_buffered = self._writer.num_buffered
        waiters, self._flush_waiters = self._flush_waiters, []
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._write, bool(waiters))
        except OSError as error:
            self._flush_waiters = waiters + self._flush_waiters
            logger.warning("event log %s cannot be written, will retry: %s", self._writer.root, error)
            self._on_log_error(f"the event log cannot be written: {error.strerror or error}")
            return False
        finally:
            written = num_buffered - self._writer.num_buffered
            self._metrics.trainer_logged_plays.inc(written)
        self._last_flush_s = self._clock()
        self._on_log_error(None)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return True

    async def _pause(self) -> None:
        self._last_poll_s = self._clock()
        self._lagging.only(())  # this wait is deliberate, and the log and /readyz report its cause
        await asyncio.sleep(RETRY_S)

    def _write(self, purge: bool) -> None:
        if self._writer.flush():
            self._writer.merge()
        if purge and (num_erased := self._writer.purge()):
            logger.info("erasure: removed %d plays from the event log", num_erased)

    def _is_flush_due(self) -> bool:
        num_buffered = self._writer.num_buffered
        is_old = self._clock() - self._last_flush_s >= self._flush_interval_s
        return num_buffered >= MAX_BUFFERED_PLAYS or (num_buffered > 0 and is_old) or bool(self._flush_waiters)

    def _append(self, partition: int, records: Sequence[SourceRecord]) -> None:
        plays: list[LoggedPlay] = []
        for record in records:
            if (user_id := self._reader.erased_user(record)) is not None:
                self._take(partition, plays, record.offset + 1)
                self._writer.erase(PendingErasure(partition, record.offset, user_id))
                plays = []
            elif (play := self._reader.read(record)) is not None:
                plays.append(play)
        self._take(partition, plays, records[-1].offset + 1)

    def _take(self, partition: int, plays: Sequence[LoggedPlay], next_offset: int) -> None:
        self._writer.append(partition, plays, next_offset)
        self._on_plays(partition, plays, next_offset)

    async def _resume(self) -> None:
        counts = await count_partitions(self._settings, self._topic)
        if self._topic not in counts:
            raise BrokerError(f"no topic {self._topic} on {self._settings.broker}; create the topics: intentrec topics")
        partitions = [TopicPartition(self._topic, number) for number in range(counts[self._topic])]
        any_partitioner = self._settings.plays_partitioner == "any"
        self._reader = PlayReader(self._domain, None if any_partitioner else len(partitions))
        self._consumer.assign(partitions)
        beginnings = await self._consumer.beginning_offsets(partitions)
        await self._check_log_belongs_to_topic(beginnings)
        for partition in partitions:
            position = self._writer.next_offset(partition.partition)
            if missed := self._writer.skip_to(partition.partition, beginnings[partition]):
                # For a new log this is no loss.
                log = logger.warning if position else logger.info
                log(
                    "partition %d: %d plays were deleted before they were logged%s",
                    partition.partition,
                    missed,
                    RESEND_ERASURES if position else "",
                )
            self._consumer.seek(partition, self._writer.next_offset(partition.partition))

    async def _check_log_belongs_to_topic(self, beginnings: Mapping[TopicPartition, int]) -> None:
        """Checks that the newest logged plays are on the topic at their offsets; a recreated topic may have grown as long.

        End offsets are not compared: the embedded broker reports the offset of the first record of its last batch.
        """
        newest = await asyncio.to_thread(EventLog(self._writer.root, self._topic).newest_plays)
        for number, play in newest.items():
            partition = TopicPartition(self._topic, number)
            if partition not in beginnings:
                raise StateError(
                    f"the event log has a partition {number} that topic {self._topic} does not have. {self._remedy}"
                )
            if play.offset < beginnings[partition]:
                continue
            self._consumer.seek(partition, play.offset)
            found = await self._play_at(partition, play.offset)
            if found != play.event_id:
                raise StateError(
                    f"partition {number}, offset {play.offset}: the event log has play {play.event_id}, topic {self._topic} "
                    f"has {found or 'none'}: the topic was created anew. {self._remedy}"
                )

    async def _play_at(self, partition: TopicPartition, offset: int) -> str | None:
        """Event id of the play at the offset that the consumer was positioned at; None if there is no play."""
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
        return f"Move {self._writer.root} aside, or set event_log_dir to another folder"
