"""Reads the items topic: from its beginning to its end as of now, then what comes.

The reader belongs to no group and commits nothing. A process reads the whole topic when it starts, so what compaction has removed
is not there: it was withdrawn. So it is when the topic is deleted and made anew, which its id or its offsets show.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from intentrec_core.errors import BrokerError
from intentrec_core.features.catalogue import Item
from stream.kafka.broker_checks import uses_transactions
from stream.kafka.clients import close_consumer, reader
from stream.kafka.topic_id import read_topic_id
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
#: How soon a topic made anew and a worker that falls behind are noticed. A look costs the broker two small requests.
_LOOK_INTERVAL_S = 1.0
_LOOK_DEADLINE_S = 5.0
#: Changes applied between two micro-batches: some milliseconds of the inference thread.
_MAX_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class _Look:
    """The id of the topic, None where the broker has none, and the offset after its last record as of a time since 1970."""

    topic_id: bytes | None
    end: int
    at_s: float


class ItemsReader:
    """An async context manager, owned by the event loop. :meth:`everything` or :meth:`changes` comes first, then :meth:`follow`.

    Records that are no items are logged and counted; nobody can read what they say, so their items are withdrawn.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = TopicPartition(settings.items_topic, 0)
        self._exact_ends = False
        self._topic_id: bytes | None = None
        self._end, self._as_of_s = 0, 0.0

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
            await self._rewind()
        except (KafkaError, TimeoutError) as error:
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

    async def follow(self, saw_lag: Callable[[int, float], None]) -> AsyncIterator[ItemChanges]:
        """The next changes, as they come; those that come together, together. Retries when the broker fails.

        Their offset is that of the last record read, the markers of transactions included: :meth:`changes` counts these too, and
        all workers that have read all of the topic know the same offset. A marker alone changes nothing but the offset. A topic
        that was deleted and made anew is read from its beginning.

        ``saw_lag`` is told about once a second how many records wait, and as of which time, in seconds since 1970, all records
        are known. Changes count as known once the next ones are asked for. While the broker fails it is told nothing.
        """
        known, awaited = await self._consumer.position(self._source), None
        next_look_s = 0.0
        saw_lag(0, self._as_of_s)
        while True:
            try:
                fetched = await self._consumer.getmany(self._source, timeout_ms=_POLL_MS, max_records=_MAX_AT_ONCE)
                position = await self._consumer.position(self._source)
                if position == known and time.monotonic() < next_look_s:
                    continue
                # After each fetch, so that nothing of a topic made anew is taken for a change of the one before.
                look = await self._look()
                is_anew = look.topic_id != self._topic_id
            except OffsetOutOfRangeError:
                is_anew = True
            except (KafkaError, TimeoutError) as error:
                logger.warning("the items on %s cannot be read; retrying: %r", self._settings.broker, error)
                self._consumer.seek(self._source, known)  # what was fetched before the failure is fetched again
                await asyncio.sleep(_RETRY_S)
                continue
            if is_anew:
                logger.warning("%s was made anew: all of it is read again", self._source.topic)
                yield await self._all_again()
                known, awaited = await self._consumer.position(self._source), None
                saw_lag(0, self._as_of_s)
                continue
            next_look_s = time.monotonic() + _LOOK_INTERVAL_S
            awaited = awaited or look
            if position != known:
                known = position
                yield self._changes_of(fetched.get(self._source, ()), position - 1)
            if known >= awaited.end:
                self._as_of_s, awaited = awaited.at_s, None
            saw_lag(max(0, look.end - known), self._as_of_s)

    async def _all_again(self) -> ItemChanges:
        while True:
            try:
                await self._rewind()
                return replace(await self.changes(), is_whole=True)
            except (KafkaError, BrokerError, TimeoutError) as error:
                logger.warning("the items on %s cannot be read; retrying: %r", self._settings.broker, error)
                await asyncio.sleep(_RETRY_S)

    async def _rewind(self) -> None:
        """Goes to the beginning of the topic that there is now."""
        async with asyncio.timeout(_LOOK_DEADLINE_S):
            # The id first: of a topic that is made anew after this, the next look finds another one.
            self._topic_id = await read_topic_id(self._consumer._client, self._source.topic)
            beginning = (await self._consumer.beginning_offsets([self._source]))[self._source]
        # Assigned anew, so that the consumer drops what it has fetched ahead.
        self._consumer.assign([self._source])
        self._consumer.seek(self._source, beginning)

    async def _look(self) -> _Look:
        async with asyncio.timeout(_LOOK_DEADLINE_S):
            topic_id, at_s = await read_topic_id(self._consumer._client, self._source.topic), time.time()
            return _Look(topic_id, (await self._consumer.end_offsets([self._source]))[self._source], at_s)

    async def to_the_end(self) -> AsyncIterator[Records]:
        """The records from where reading ended before, at first from the beginning, up to the end of the topic as of now.

        Raises: BrokerError when the broker fails.
        """
        source, exact = self._source, self._exact_ends
        try:
            as_of_s = time.time()
            self._end = (await self._consumer.end_offsets([source]))[source]
            beginning = (await self._consumer.beginning_offsets([source]))[source]
            if not exact or beginning < self._end:
                async for records in read_until(self._consumer, source, self._end, exact=exact, stalled_s=_STALLED_S):
                    yield records
                if exact:  # the last fetch may have gone past the end, and what is past it was not yielded
                    self._consumer.seek(source, self._end)
            self._as_of_s = as_of_s
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
