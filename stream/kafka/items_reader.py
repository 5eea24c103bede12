"""Reads the items topic: from its beginning to its end as of now, then what comes.

The reader belongs to no group and commits nothing. A process reads the whole topic when it starts, so what compaction has removed
is not there: it was withdrawn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from intentrec_core.errors import BrokerError
from intentrec_core.features.catalogue import Item
from stream.kafka.broker_checks import uses_transactions
from stream.kafka.clients import close_consumer, reader
from stream.kafka.topic_reader import FETCH_BYTES, Records, read_until
from stream.kafka.topics import count_partitions
from stream.wire.catalogue_record import ItemChanges, as_shown, item_hash, read_item
from stream.wire.messages import CatalogueItem

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

_STALLED_S = 30.0
_POLL_MS = 200
_RETRY_S = 1.0
#: Changes applied between two micro-batches: some milliseconds of the inference thread.
_MAX_AT_ONCE = 512


class ItemsReader:
    """An async context manager, owned by the event loop. :meth:`everything` or :meth:`changes` comes first, then :meth:`follow`.

    Records that are no items are logged and counted; nobody can read what they say, so their items are withdrawn.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = TopicPartition(settings.items_topic, 0)
        self._exact_ends = False
        self._end = 0

    async def __aenter__(self) -> Self:
        """Connects.

        Raises: BrokerError when the broker cannot be reached, or the topic does not exist as one partition.
        """
        settings, topic = self._settings, self._source.topic
        # Probed, whatever the transactions setting says: only a broker with transactions reports exact ends.
        self._exact_ends = await uses_transactions(settings.model_copy(update={"transactions": "auto"}))
        try:
            num_partitions = (await count_partitions(settings, topic)).get(topic)
        except KafkaError as error:
            raise self._unreadable(error) from error
        if num_partitions != 1:
            raise BrokerError(
                f"topic {topic} on {settings.broker} has {num_partitions or 'no'} partitions; allowed: one; "
                "create it: intentrec topics"
            )
        # No reset by the client: it would go on in a topic that was made anew as if the records before were still there.
        self._consumer = reader(settings, "items", max_partition_fetch_bytes=FETCH_BYTES, auto_offset_reset="none")
        try:
            await self._consumer.start()
            beginning = (await self._consumer.beginning_offsets([self._source]))[self._source]
            self._consumer.assign([self._source])
            self._consumer.seek(self._source, beginning)
        except KafkaError as error:
            await close_consumer(self._consumer)
            raise self._unreadable(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects."""
        await close_consumer(self._consumer)

    async def everything(self) -> dict[str, CatalogueItem]:
        """The newest record of each item, up to the end of the topic as of now, by item id; without tombstones.

        Raises: BrokerError when the broker fails.
        """
        items: dict[str, CatalogueItem] = {}
        async for records in self.to_the_end():
            for record in records:
                item, item_id = self._read(record), (record.key or b"").decode(errors="replace")
                if isinstance(item, CatalogueItem):
                    items[item_id] = item
                else:
                    items.pop(item_id, None)
        return items

    async def changes(self) -> ItemChanges:
        """All items as of the end of the topic now.

        Raises: BrokerError when the broker fails.
        """
        items: dict[int, Item | None] = {}
        offset, num_unreadable = -1, 0
        async for records in self.to_the_end():
            newer = self._changes_of(records, records[-1].offset)
            items |= newer.items
            offset, num_unreadable = newer.offset, num_unreadable + newer.num_unreadable
        # The newest records may be gone by compaction: they were tombstones, and what they withdrew is not there.
        return ItemChanges(items, max(offset, self._end - 1) if self._exact_ends else offset, num_unreadable)

    async def follow(self) -> AsyncIterator[ItemChanges]:
        """The next changes, as they come; those that come together, together. Retries when the broker fails.

        Their offset is that of the last record read, the markers of transactions included: :meth:`changes` counts these too, and
        all workers that have read all of the topic know the same offset. A marker alone changes nothing but the offset. A topic
        that was deleted and made again is read from its beginning, once it has less records than were read before.
        """
        known = await self._consumer.position(self._source)
        while True:
            try:
                fetched = await self._consumer.getmany(self._source, timeout_ms=_POLL_MS, max_records=_MAX_AT_ONCE)
                position = await self._consumer.position(self._source)
            except OffsetOutOfRangeError:
                logger.warning("%s was made anew: all of it is read again", self._source.topic)
                yield await self._all_again()
                known = await self._consumer.position(self._source)
                continue
            except KafkaError as error:
                logger.warning("the items on %s cannot be read; retrying: %r", self._settings.broker, error)
                await asyncio.sleep(_RETRY_S)
                continue
            if position != known:
                known = position
                yield self._changes_of(fetched.get(self._source, ()), position - 1)

    async def _all_again(self) -> ItemChanges:
        while True:
            try:
                beginning = (await self._consumer.beginning_offsets([self._source]))[self._source]
                self._consumer.seek(self._source, beginning)
                return replace(await self.changes(), is_whole=True)
            except (KafkaError, BrokerError) as error:
                logger.warning("the items on %s cannot be read; retrying: %r", self._settings.broker, error)
                await asyncio.sleep(_RETRY_S)

    async def to_the_end(self) -> AsyncIterator[Records]:
        """The records from where reading ended before, at first from the beginning, up to the end of the topic as of now.

        Raises: BrokerError when the broker fails.
        """
        source, exact = self._source, self._exact_ends
        try:
            self._end = (await self._consumer.end_offsets([source]))[source]
            beginning = (await self._consumer.beginning_offsets([source]))[source]
            if exact and beginning >= self._end:
                return
            async for records in read_until(self._consumer, source, self._end, exact=exact, stalled_s=_STALLED_S):
                yield records
            if exact:  # the last fetch may have gone past the end, and what is past it was not yielded
                self._consumer.seek(source, self._end)
        except KafkaError as error:
            raise self._unreadable(error) from error

    def _changes_of(self, records: Records, offset: int) -> ItemChanges:
        read = [self._read(record) for record in records]
        items = {
            item_hash(record.key or b""): as_shown(item) if isinstance(item, CatalogueItem) else None
            for record, item in zip(records, read, strict=True)
        }
        return ItemChanges(items, offset, sum(isinstance(item, ValueError) for item in read))

    def _read(self, record: Any) -> CatalogueItem | ValueError | None:
        try:
            return read_item(record.key, record.value)
        except ValueError as error:
            logger.warning(
                "%s: the record at offset %d is not an item, so the item of its key is in no list: %s",
                self._source.topic, record.offset, error,
            )  # fmt: skip
            return error

    def _unreadable(self, error: BaseException) -> BrokerError:
        return BrokerError(
            f"the items in topic {self._source.topic} on {self._settings.broker} cannot be read: {error!r}; is the broker up?"
        )
