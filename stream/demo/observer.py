"""An independent subscriber of the outputs: drops repeats as the contract demands, and measures latency as a member sees it.

After a failure, workers repeat outputs under the same ids, possibly from a newer bundle. The rule for every subscriber: keep
the highest source offset per member, and drop outputs at that offset or below. :class:`Ledger` implements that rule and shares
no code with the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from intentrec_core.errors import BrokerError
from stream.kafka.clients import close_consumer, consumer_options
from stream.kafka.topics import count_partitions
from stream.ops.quantiles import LatencyDigest, SlidingDigest
from stream.wire.codec import decode_announcement, decode_intent, decode_recommendation
from stream.wire.messages import Announcement, IntentUpdate, Recommendation

if TYPE_CHECKING:
    from stream.settings import Settings

#: Time window of the latency on the screen: long enough for a p99 at 100 plays/s, short enough to see a swap.
LIVE_SPAN_S = 5.0
#: One poll: some 5 MB, at 300 bytes per intent and 700 per recommendation.
_MAX_POLL_RECORDS = 5_000
_POLL_MS = 100


class Ledger:
    """Decides which outputs of one topic are new, from the highest source offset seen per member.

    A member's plays are in one partition, so their offsets are ordered. Cost: one number per member.
    """

    def __init__(self) -> None:
        self.fresh = self.repeated = self.stale = 0
        self._highest: dict[str, int] = {}

    def admit(self, user_id: str, offset: int) -> bool:
        """Whether this output is new. Counts it as fresh, repeated (same offset) or stale (lower offset)."""
        highest = self._highest.get(user_id, -1)
        if offset > highest:
            self._highest[user_id] = offset
            self.fresh += 1
            return True
        if offset == highest:
            self.repeated += 1
        else:
            self.stale += 1
        return False


class SentTimes:
    """Send times of plays whose recommendation has not arrived yet. Bounded: drops the oldest first."""

    def __init__(self, limit: int = 200_000) -> None:
        self._limit = limit
        self._sent_ms: OrderedDict[str, int] = OrderedDict()

    def note(self, event_id: str, sent_ms: int) -> None:
        """Records that a play is sent."""
        self._sent_ms[event_id] = sent_ms
        if len(self._sent_ms) > self._limit:
            self._sent_ms.popitem(last=False)

    def take(self, event_id: str) -> int | None:
        """Removes and returns the send time of a play; None if it is unknown or was dropped."""
        return self._sent_ms.pop(event_id, None)


@dataclass
class Observer:
    """Reads recommendations, intents, dead letters, late plays and announcements from the start of their topics.

    Measures end-to-end latency, from a play's send timestamp to the arrival of its recommendation. For a play sent by another
    process, which ``sent`` does not know, it uses the worker's own measurement in the message.
    """

    settings: Settings
    sent: SentTimes = field(default_factory=SentTimes)
    on_recommendation: Callable[[Recommendation], None] = lambda message: None
    on_intent: Callable[[IntentUpdate], None] = lambda message: None
    recommendations: Ledger = field(default_factory=Ledger, init=False)
    intents: Ledger = field(default_factory=Ledger, init=False)
    dead_lettered: int = field(default=0, init=False)
    late: int = field(default=0, init=False)
    announcements: list[Announcement] = field(default_factory=list, init=False)
    bundles_seen: dict[str, int] = field(default_factory=dict, init=False)
    latency: LatencyDigest = field(default_factory=LatencyDigest, init=False)
    live_latency: SlidingDigest = field(default_factory=lambda: SlidingDigest(LIVE_SPAN_S, time.monotonic), init=False)
    _consumer: AIOKafkaConsumer | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> None:
        """Starts reading, in a task on this event loop.

        Raises: BrokerError if the broker cannot be reached or a topic is missing.
        """
        self._consumer = AIOKafkaConsumer(
            **consumer_options(self.settings, "observer"),
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        try:
            await self._consumer.start()
            partitions = await self._partitions()
            self._consumer.assign(partitions)
            await self._consumer.seek_to_beginning(*partitions)
        except KafkaError as error:
            await close_consumer(self._consumer)
            raise BrokerError(
                f"cannot read the outputs on {self.settings.broker}: {error!r}; is the broker up?"
            ) from error
        except BrokerError:
            await close_consumer(self._consumer)
            raise
        self._task = asyncio.create_task(self._read(self._consumer), name="observer")

    async def stop(self) -> None:
        """Stops reading. Raises: the error that ended reading early, if any."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # cancelled above
                await self._task
        if self._consumer is not None:
            await close_consumer(self._consumer)

    def note_sent(self, event_id: str, sent_ms: int) -> None:
        """Records that this process sends a play."""
        self.sent.note(event_id, sent_ms)

    @property
    def error(self) -> BaseException | None:
        """The error that ended reading; None while it continues."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    def on_record(self, topic: str, value: bytes | None, now_ms: float) -> None:
        """Handles one record of any of the topics."""
        settings = self.settings
        if value is None:
            return
        if topic == settings.recommendations_topic:
            self._on_recommendation(decode_recommendation(value), now_ms)
        elif topic == settings.intents_topic:
            intent = decode_intent(value)
            if self.intents.admit(intent.user_id, intent.source.offset):
                self.on_intent(intent)
        elif topic == settings.dead_letter_topic:
            self.dead_lettered += 1
        elif topic == settings.late_topic:
            self.late += 1
        elif topic == settings.model_updates_topic:
            self.announcements.append(decode_announcement(value))

    def _on_recommendation(self, message: Recommendation, now_ms: float) -> None:
        sent_ms = self.sent.take(message.event_id)
        if not self.recommendations.admit(message.user_id, message.source.offset):
            return
        self.bundles_seen[message.bundle] = self.bundles_seen.get(message.bundle, 0) + 1
        latency_s = (now_ms - sent_ms) / 1000.0 if sent_ms is not None else message.latency_s
        if isinstance(latency_s, float):
            self.latency.add(latency_s)
            self.live_latency.add(latency_s)
        self.on_recommendation(message)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_POLL_RECORDS)
            now_ms = time.time_ns() / 1e6
            for partition, records in batches.items():
                for record in records:
                    self.on_record(partition.topic, record.value, now_ms)
            await asyncio.sleep(0)

    async def _partitions(self) -> list[TopicPartition]:
        settings = self.settings
        topics = (
            settings.recommendations_topic,
            settings.intents_topic,
            settings.dead_letter_topic,
            settings.late_topic,
            settings.model_updates_topic,
        )
        counts = await count_partitions(settings, *topics)
        if missing := [topic for topic in topics if topic not in counts]:
            raise BrokerError(
                f"no topic {', '.join(missing)} on {settings.broker}: create them with `intentrec topics`"
            )
        return [TopicPartition(topic, partition) for topic in topics for partition in range(counts[topic])]
