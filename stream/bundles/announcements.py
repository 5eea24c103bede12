"""Announces bundles to all workers, on a compacted topic of one partition. Trainers and rollbacks announce; workers follow.

Each worker reads the topic outside any group, so every worker sees every announcement. Sequence numbers rise. If two
announcements have the same number, the first one counts for every worker; so an announcer reads its announcement back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, ConfigError
from intentrec_core.times import iso_time
from stream.kafka.clients import close_consumer, closed_on_failure, reader
from stream.wire.codec import decode_announcement, encode
from stream.wire.messages import Announcement

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

#: The same key for all: compaction keeps the last announcement, which is enough for a new worker.
ANNOUNCEMENT_KEY = b"bundle"
#: Announcers that collide retry with the next number. More than two at a time is a mistake of the operator.
_MAX_TRIES = 5
#: Every worker and trainer reads the announcements from the beginning of the topic.
_MAX_BYTES = 64 * 1024
_READ_DEADLINE_S = 30.0
_POLL_MS = 200
_RETRY_S = 1.0


class AnnouncementFollower:
    """Reads announcements in order. An async context manager. Records that cannot be decoded are logged and skipped."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.model_updates_topic
        self._broker = settings.broker
        self._source = TopicPartition(self._topic, 0)
        self._consumer = reader(settings, "announcements")

    async def __aenter__(self) -> Self:
        """Connects, and seeks to the beginning of the topic.

        Raises: BrokerError when the broker cannot be reached, or the topic does not exist.
        """
        try:
            async with closed_on_failure(self._consumer), asyncio.timeout(_READ_DEADLINE_S):
                await self._consumer.start()
                self._consumer.assign([self._source])
                await self._consumer.seek_to_beginning(self._source)
        except (TimeoutError, KafkaError) as error:
            raise self._unreachable(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects."""
        await close_consumer(self._consumer)

    async def read(self) -> list[Announcement]:
        """The next announcements, up to the end of the topic.

        Raises: BrokerError when the broker fails.
        """
        announcements: list[Announcement] = []
        try:
            async with asyncio.timeout(_READ_DEADLINE_S):
                end = (await self._consumer.end_offsets([self._source]))[self._source]
                while await self._consumer.position(self._source) < end:
                    announcements += await self._fetch()
        except (TimeoutError, KafkaError) as error:
            raise self._unreachable(error) from error
        return announcements

    async def follow(self) -> AsyncIterator[Announcement]:
        """The next announcements, as they come. Retries when the broker fails."""
        while True:
            try:
                announcements = await self._fetch()
            except KafkaError as error:
                logger.warning("announcements on %s cannot be read; retrying: %r", self._broker, error)
                await asyncio.sleep(_RETRY_S)
                continue
            for announcement in announcements:
                yield announcement

    async def _fetch(self) -> list[Announcement]:
        fetched = await self._consumer.getmany(self._source, timeout_ms=_POLL_MS)
        return [a for record in fetched.get(self._source, ()) if (a := self._decoded(record)) is not None]

    def _decoded(self, record: Any) -> Announcement | None:
        if record.value is None:
            return None
        try:
            return decode_announcement(record.value)
        except msgspec.DecodeError as error:
            logger.warning("%s: the record at offset %d is not an announcement: %s", self._topic, record.offset, error)
            return None

    def _unreachable(self, error: BaseException) -> BrokerError:
        return BrokerError(
            f"announcements in topic {self._topic} on {self._broker} cannot be read: {error!r}; is the broker up?"
        )


def newest(announcements: Iterable[Announcement]) -> Announcement | None:
    """The announcement that counts: the first one with the highest number. None if there are none."""
    return max(announcements, key=lambda announcement: announcement.sequence, default=None)


async def announce(
    settings: Settings, *, bundle: str, url: str, parent: str | None = None, reason: str = "trained"
) -> Announcement:
    """Announces a bundle with the next number; returns once it is certain that workers will take this announcement.

    The bundle must be complete in its store, because workers fetch it at once.

    Raises: BrokerError when the broker fails, or other announcers take the number several times in a row; ConfigError for a
    URL or a reason of many thousand characters.
    """
    producer = AIOKafkaProducer(**settings.connection(), client_id=f"{settings.app_id}-announcer", acks="all")
    try:
        await producer.start()
        async with AnnouncementFollower(settings) as follower:
            known = newest(await follower.read())
            for _ in range(_MAX_TRIES):
                sequence = 1 if known is None else known.sequence + 1
                created_at = iso_time(time.time_ns() // 1_000_000)
                announcement = Announcement(
                    sequence=sequence, bundle=bundle, url=url, parent=parent, created_at=created_at, reason=reason
                )
                value = encode(announcement)
                if len(value) > _MAX_BYTES:
                    raise ConfigError(
                        f"the announcement of bundle {bundle} has {len(value)} bytes; allowed: {_MAX_BYTES}; shorten the URL "
                        f"({len(url)} characters) or the reason ({len(reason)} characters)"
                    )
                await producer.send_and_wait(settings.model_updates_topic, value, key=ANNOUNCEMENT_KEY, partition=0)
                since = [other for other in await follower.read() if other.sequence >= sequence]
                if since and since[0] == announcement:
                    return announcement
                known = newest(since) or known
                logger.warning("number %d was taken by another announcement; retrying with the next number", sequence)
    except KafkaError as error:
        raise BrokerError(f"bundle {bundle} cannot be announced on {settings.broker}: {error!r}") from error
    finally:
        await producer.stop()
    raise BrokerError(f"bundle {bundle} was not announced: others announce at the same time; stop the other trainer")
