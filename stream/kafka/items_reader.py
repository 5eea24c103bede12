"""Reads the items topic: from its beginning to its end as of now, then what comes.

The reader belongs to no group and commits nothing. A process reads the whole topic when it starts, so what compaction has removed
is not there: it was withdrawn. So it is when the topic is deleted and made anew, which its id or its offsets show.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, UnknownTopicOrPartitionError

from intentrec_core.errors import BrokerError
from intentrec_core.features.catalogue import Item
from stream.kafka.broker_checks import supports_transactions
from stream.kafka.clients import close_consumer, closed_on_failure, reader
from stream.kafka.topic_id import TopicNow, read_log_end, read_topic
from stream.kafka.topic_reader import FETCH_BYTES, Records, read_until
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
#: Between two times that all of the topic is read, so that a broker that contradicts itself keeps no worker busy.
_REREAD_INTERVAL_S = 2.0
#: Between two warnings with the same cause.
_WARNING_INTERVAL_S = 60.0
#: Changes applied between two micro-batches: some milliseconds of the inference thread.
_MAX_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class _Look:
    """The topic, and the offset after its last record as of a time since 1970."""

    topic: TopicNow
    end: int
    at_s: float


class ItemsReader:
    """An async context manager, owned by the event loop. :meth:`everything` or :meth:`changes` comes first, then :meth:`follow`.

    A record that cannot be read as an item is logged and counted, and its item is withdrawn.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = TopicPartition(settings.items_topic, 0)
        self._exact_ends = False
        self._topic_id: bytes | None = None
        self._end, self._as_of_s = 0, 0.0
        self._warned, self._next_warning_s = "", 0.0

    async def __aenter__(self) -> Self:
        """Connects.

        Raises: BrokerError when the broker cannot be reached, or the topic does not exist as one partition.
        """
        settings = self._settings
        # Probed, whatever the transactions setting says: only a broker with transactions reports exact ends.
        self._exact_ends = await supports_transactions(settings)
        # No reset by the client: it would go on in a topic that was made anew as if the records before were still there.
        self._consumer = reader(settings, "items", max_partition_fetch_bytes=FETCH_BYTES, auto_offset_reset="none")
        try:
            async with closed_on_failure(self._consumer):
                await self._consumer.start()
                await self._rewind()
        except (KafkaError, BrokerError, TimeoutError) as error:
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
        """All items as of the end of the topic now, also where it was made anew since the reader connected, or meanwhile.

        Raises: BrokerError when the broker fails, or the topic does not exist as one partition.
        """
        while True:
            try:
                if self._is_anew(await self._topic()):
                    await self._rewind()
                changes = await self._all()
                if not self._is_anew(await self._topic()):
                    return changes
            except KafkaError as error:
                raise self._unreadable(error) from error
            await asyncio.sleep(_RETRY_S)

    async def _all(self) -> ItemChanges:
        items: dict[int, Item | None] = {}
        offset, num_unreadable = -1, 0
        async for records in self.to_the_end():
            newer = self._changes_of(records, records[-1].offset)
            items |= newer.items
            offset, num_unreadable = newer.offset, num_unreadable + newer.num_unreadable
        # The newest records may be gone by compaction: they were tombstones, and what they withdrew is not there.
        return ItemChanges(items, max(offset, self._end - 1) if self._exact_ends else offset, num_unreadable)

    async def follow(self, saw_lag: Callable[[float, float], None]) -> AsyncIterator[ItemChanges]:
        """The next changes, as they come; those that come together, together. Retries when the broker fails.

        Their offset is that of the last record read, the markers of transactions included: :meth:`changes` counts these too, and
        all workers that have read all of the topic know the same offset. A marker alone changes nothing but the offset. A topic
        that was deleted and made anew is read from its beginning, once it holds an item: before that nothing is known of what it
        will hold, but for what it withdraws.

        ``saw_lag(num_waiting, as_of_s)`` is called about once a second, and before changes are yielded. ``num_waiting``: records
        that the caller has not applied yet, those of open transactions included; NaN while the topic is gone, has not one
        partition or was made anew and holds no item, or the broker fails. ``as_of_s``: every record written before this time, in
        seconds since 1970, is applied, but for what a transaction held back that was open when the topic was read first. Changes
        count as applied when the caller asks for the next.

        The embedded broker gives the offset of its last batch's first record as the end: ``as_of_s`` can be ahead while a batch
        of more than 512 records is applied.
        """
        known, awaited = await self._consumer.position(self._source), None
        next_look_s = next_reread_s = 0.0
        saw_lag(0, self._as_of_s)
        while True:
            try:
                fetched = await self._consumer.getmany(self._source, timeout_ms=_POLL_MS, max_records=_MAX_AT_ONCE)
                position = await self._consumer.position(self._source)
                if position == known and time.monotonic() < next_look_s:
                    continue
                # After each fetch, so that nothing of a topic made anew is taken for a change of the one before.
                look = await self._look()
                is_anew = self._is_anew(look.topic)
            except (OffsetOutOfRangeError, UnknownTopicOrPartitionError):
                is_anew = True
            except (KafkaError, BrokerError, TimeoutError) as error:
                saw_lag(math.nan, self._as_of_s)
                self._warn(error)
                self._consumer.seek(self._source, known)  # what was fetched before the failure is fetched again
                await asyncio.sleep(_RETRY_S)
                continue
            if is_anew:
                saw_lag(math.nan, self._as_of_s)
                await asyncio.sleep(next_reread_s - time.monotonic())
                async for changes in self._all_again():
                    yield changes
                next_reread_s = time.monotonic() + _REREAD_INTERVAL_S
                known, awaited = await self._consumer.position(self._source), None
                saw_lag(0, self._as_of_s)
                continue
            self._topic_id, self._warned = self._topic_id or look.topic.topic_id, ""
            next_look_s = time.monotonic() + _LOOK_INTERVAL_S
            awaited = awaited or look
            if position != known:
                saw_lag(look.end - known, self._as_of_s)
                known = position
                yield self._changes_of(fetched.get(self._source, ()), position - 1)
            if known >= awaited.end:
                self._as_of_s, awaited = awaited.at_s, None
            saw_lag(max(0, look.end - known), self._as_of_s)

    async def _all_again(self) -> AsyncIterator[ItemChanges]:
        """All items of the topic that there is now, once it holds one; before that what it withdraws."""
        withdrawn: ItemChanges | None = None
        while True:
            try:
                async with asyncio.timeout(_LOOK_DEADLINE_S):
                    await self._rewind()
                changes = await self.changes()
                if any(item is not None for item in changes.items.values()):
                    logger.warning("%s was made anew: all of it is read again", self._source.topic)
                    yield replace(changes, is_whole=True)
                    return
                self._warn(None)
                if changes.items and changes != withdrawn:
                    withdrawn = changes
                    yield changes
            except (KafkaError, BrokerError, TimeoutError) as error:
                self._warn(error)
                # A consumer asks for an assigned topic that is gone thousands of times a second.
                self._consumer.unsubscribe()
            await asyncio.sleep(_RETRY_S)

    def _warn(self, error: Exception | None) -> None:
        """Says why the items cannot be read; None where the topic holds no item. At once where the cause is another one."""
        topic, broker = self._source.topic, self._settings.broker
        if error is not None and not isinstance(error, UnknownTopicOrPartitionError):
            fault = error if isinstance(error, BrokerError) else repr(error)
            text = f"the items in topic {topic} on {broker} cannot be read; lists stay as they are; retrying: {fault}"
        else:
            fault = "holds no item" if error is None else "does not exist"
            remedy = (
                "intentrec items sync FILE" if error is None else "intentrec topics, then intentrec items sync FILE"
            )
            text = f"topic {topic} on {broker} {fault}; lists stay as they are until it is filled: {remedy}"
        if text != self._warned or time.monotonic() >= self._next_warning_s:
            self._warned, self._next_warning_s = text, time.monotonic() + _WARNING_INTERVAL_S
            logger.warning("%s", text)

    async def _rewind(self) -> None:
        """Goes to the beginning of the topic that there is now."""
        # The id first: of a topic that is made anew after this, the next look finds another one.
        self._topic_id = (await self._topic()).topic_id
        beginning = (await self._consumer.beginning_offsets([self._source]))[self._source]
        # Assigned anew, so that the consumer drops what it has fetched ahead.
        self._consumer.assign([self._source])
        self._consumer.seek(self._source, beginning)

    async def _look(self) -> _Look:
        async with asyncio.timeout(_LOOK_DEADLINE_S):
            topic, at_s = await self._topic(), time.time()
            return _Look(topic, await read_log_end(self._consumer._client, self._source), at_s)

    async def _topic(self) -> TopicNow:
        topic = await read_topic(self._consumer._client, self._source.topic)
        if topic.num_partitions != 1:
            raise several_partitions(self._settings, topic.num_partitions)
        return topic

    def _is_anew(self, topic: TopicNow) -> bool:
        # A broker without ids says nothing about it: during an upgrade some brokers have ids and others do not.
        return None not in (topic.topic_id, self._topic_id) and topic.topic_id != self._topic_id

    async def to_the_end(self) -> AsyncIterator[Records]:
        """The records from where reading ended before, at first from the beginning, up to the end of the topic as of now.

        Raises: BrokerError when the broker fails.
        """
        source, exact = self._source, self._exact_ends
        try:
            as_of_s = time.time()
            written = await read_log_end(self._consumer._client, source)
            self._end = (await self._consumer.end_offsets([source]))[source]
            beginning = (await self._consumer.beginning_offsets([source]))[source]
            if not exact or beginning < self._end:
                async for records in read_until(self._consumer, source, self._end, exact=exact, stalled_s=_STALLED_S):
                    yield records
                if exact:  # the last fetch may have gone past the end, and what is past it was not yielded
                    self._consumer.seek(source, self._end)
            # An open transaction holds the end back. A reader without a time takes this one: its age shows how long it waits.
            if written <= self._end or not self._as_of_s:
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
        topic, broker = self._source.topic, self._settings.broker
        if isinstance(error, BrokerError):
            return error
        if isinstance(error, UnknownTopicOrPartitionError):
            return BrokerError(f"topic {topic} on {broker} does not exist; create it: intentrec topics")
        return BrokerError(f"the items in topic {topic} on {broker} cannot be read: {error!r}; is the broker up?")


def several_partitions(settings: Settings, num_partitions: int) -> BrokerError:
    """The error where the items topic has another number of partitions than one."""
    return BrokerError(
        f"topic {settings.items_topic} on {settings.broker} has {num_partitions} partitions; allowed: one, because an offset "
        "says what is known; delete it, then: intentrec topics, then intentrec items sync FILE"
    )
