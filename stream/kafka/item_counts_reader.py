"""Reads the item-counts topic: from its beginning to its end as of now, then each table as it becomes complete.

The reader belongs to no group and commits nothing. A reader sees whole tables only
(:class:`stream.wire.item_counts_record.CountsAssembly`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError
from stream.kafka.broker_checks import supports_transactions
from stream.kafka.clients import close_consumer, closed_on_failure, reader
from stream.kafka.topic_reader import FETCH_BYTES, Records, read_until
from stream.wire.item_counts_record import CountsAssembly, PackedCounts

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

_START_DEADLINE_S = 30.0
_STALLED_S = 30.0
_POLL_MS = 200
_RETRY_S = 1.0
#: After so many tables in a row without all of their blocks, the topic is read from its beginning again.
_MOST_INCOMPLETE = 3


class ItemCountsReader:
    """An async context manager, owned by the event loop. :meth:`to_the_end` comes first, then :meth:`follow`.

    A record that cannot be read is logged and left out: the tables that need it are not complete.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = TopicPartition(settings.item_counts_topic, 0)
        self._tables = CountsAssembly()
        self._next_offset = 0

    async def __aenter__(self) -> Self:
        """Connects.

        Raises: BrokerError when the broker cannot be reached, or the topic does not exist.
        """
        # Probed, whatever the transactions setting says: only a broker with transactions reports exact ends.
        self._exact_ends = await supports_transactions(self._settings)
        self._consumer = reader(self._settings, "item-counts", max_partition_fetch_bytes=FETCH_BYTES)
        try:
            async with closed_on_failure(self._consumer), asyncio.timeout(_START_DEADLINE_S):
                await self._consumer.start()
                self._consumer.assign([self._source])
                await self._consumer.seek_to_beginning(self._source)
        except (TimeoutError, KafkaError) as error:
            raise self._unreadable(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects."""
        await close_consumer(self._consumer)

    @property
    def last_sequence(self) -> int:
        """The highest sequence number read, also of a table that is not complete; 0 before the first."""
        return self._tables.last_sequence

    async def to_the_end(self) -> PackedCounts | None:
        """The newest complete table up to the end of the topic as of now; None where there is none.

        Raises: BrokerError when the broker fails.
        """
        source = self._source
        try:
            end = (await self._consumer.end_offsets([source]))[source]
            beginning = (await self._consumer.beginning_offsets([source]))[source]
            if not self._exact_ends or beginning < end:
                async for records in read_until(
                    self._consumer, source, end, exact=self._exact_ends, stalled_s=_STALLED_S
                ):
                    self._take(records)
                if self._exact_ends:  # what the last fetch had past the end was not given
                    self._consumer.seek(source, end)
        except KafkaError as error:
            raise self._unreadable(error) from error
        return self._tables.newest

    async def follow(self) -> AsyncIterator[PackedCounts]:
        """The next complete tables, as they come; of those that come together the newest. Retries when the broker fails."""
        while True:
            try:
                fetched = await self._consumer.getmany(self._source, timeout_ms=_POLL_MS)
                is_newer = self._take(fetched.get(self._source, ()))
                if self._tables.num_incomplete >= _MOST_INCOMPLETE:
                    logger.warning("tables in %s lack blocks; all of it is read again", self._source.topic)
                    self._tables.num_incomplete = self._next_offset = 0
                    await self._consumer.seek_to_beginning(self._source)
            except KafkaError as error:
                logger.warning("counts in %s cannot be read; retrying: %r", self._source.topic, error)
                await asyncio.sleep(_RETRY_S)
                continue
            if is_newer and self._tables.newest is not None:
                yield self._tables.newest

    def _take(self, records: Records) -> bool:
        """Takes records. Returns whether they make a newer table complete."""
        is_newer = False
        for record in records:
            if record.offset < self._next_offset:
                logger.warning("%s was made anew: its tables are counted from its beginning", self._source.topic)
                self._tables = CountsAssembly()
            self._next_offset = record.offset + 1
            try:
                is_newer |= self._tables.take(record.key, record.value)
            except ValueError as error:
                logger.warning(
                    "%s: the record at offset %d is no part of a table: %s", self._source.topic, record.offset, error
                )
        return is_newer

    def _unreadable(self, error: BaseException) -> BrokerError:
        topic, broker = self._source.topic, self._settings.broker
        return BrokerError(
            f"counts in topic {topic} on {broker} cannot be read: {error!r}; is the broker up, and does the topic exist "
            "(intentrec topics)?"
        )
