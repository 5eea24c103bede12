"""Reading the items topic to its end and going on from there, while it is written to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import OffsetOutOfRangeError

from stream.kafka.items_reader import ItemsReader
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.settings import Settings
from stream.wire.catalogue_record import item_hash


class Consumer:
    """A log whose end reading meets in the worst moment.

    It gets another record right after each look at its end; a fetch returns it too, as a broker's does. A marker of a transaction
    is in the log, but in no fetch.
    """

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.at = 0

    def put(self, key: bytes, value: bytes | None) -> None:
        self.log.append(SimpleNamespace(offset=len(self.log), key=key, value=value))

    def mark(self) -> None:
        self.log.append(None)

    async def end_offsets(self, sources: list[Any]) -> dict[Any, int]:
        end = len(self.log)
        self.put(b"a", None)
        return dict.fromkeys(sources, end)

    async def beginning_offsets(self, sources: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(sources, 0)

    async def getmany(self, source: Any, *, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        await asyncio.sleep(0)
        if self.at > len(self.log):
            raise OffsetOutOfRangeError({source: self.at})
        found = self.log[self.at : self.at + max_records]
        self.at += len(found)
        records = [record for record in found if record is not None]
        return {source: records} if records else {}

    async def position(self, source: Any) -> int:
        return self.at

    def seek(self, source: Any, offset: int) -> None:
        self.at = offset


def reading(consumer: Any, *, exact: bool = True) -> ItemsReader:
    """A reader of this log, at its beginning."""
    reader = ItemsReader(Settings.load())
    reader._consumer, reader._exact_ends = consumer, exact
    return reader


@pytest.mark.parametrize("exact", [True, False])
def test_no_change_is_lost_between_reading_to_the_end_and_following(exact: bool) -> None:
    async def test() -> None:
        consumer = Consumer()
        reader = reading(consumer, exact=exact)
        consumer.put(b"a", b'{"item_id": "a"}')
        items = dict((await reader.changes()).items)
        consumer.put(b"b", b'{"item_id": "b"}')
        async for changes in reader.follow():
            items |= changes.items
            if changes.offset == len(consumer.log) - 1:
                break
        assert items[item_hash(b"a")] is None

    asyncio.run(test())


def test_workers_that_know_the_same_records_name_the_same_offset() -> None:
    """Whether a worker began before the end of a transaction or after it: otherwise one of them would seem to be behind."""

    async def test() -> None:
        consumer = Consumer()
        early = reading(consumer)
        consumer.put(b"a", b'{"item_id": "a"}')
        await early.changes()
        consumer.mark()
        seen = -1
        async with asyncio.timeout(2):
            async for changes in early.follow():
                assert changes.offset > seen
                seen = changes.offset
                if seen == len(consumer.log) - 1:
                    break
        assert changes.num_unreadable == 0

    asyncio.run(test())


def test_what_a_topic_that_was_made_anew_does_not_have_is_withdrawn() -> None:
    async def test() -> None:
        consumer, catalogue = Consumer(), LiveCatalogue()
        reader = reading(consumer)
        for item_id in (b"a", b"b", b"c", b"d"):
            consumer.put(item_id, b'{"item_id": "%s"}' % item_id)
        catalogue.apply(await reader.changes())
        consumer.log.clear()
        consumer.put(b"b", b'{"item_id": "b"}')
        async with asyncio.timeout(2):
            async for changes in reader.follow():
                catalogue.apply(changes)
                break
        shown = [item.item_id for item in catalogue.everything().items.values() if item is not None]
        assert (shown, catalogue.num_items, catalogue.offset) == (["b"], 1, 0)

    asyncio.run(test())
