"""Reading the items topic to its end and going on from there, while it is written to."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError

from stream.kafka import items_reader
from stream.kafka.items_reader import ItemsReader
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.settings import Settings
from stream.wire.catalogue_record import item_hash


class Consumer:
    """A log whose end reading meets in the worst moment.

    It gets another record right after the first look at its end; a fetch returns it too, as a broker's does. A marker of a
    transaction is in the log, but in no fetch. ``topic_id``: all zeros, as a broker without ids has it.
    """

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.at = 0
        self.late: list[bytes] = [b"a"]
        self.topic_id = bytes(16)
        self.failures: list[KafkaError] = []
        self._client = SimpleNamespace(get_random_node=lambda: 1, send=self._send)

    async def _send(self, _: int, request: Any) -> Any:
        if self.failures:
            raise self.failures.pop()
        return SimpleNamespace(topics=[(0, "items", self.topic_id, False, [], 0, {})])

    def put(self, key: bytes, value: bytes | None) -> None:
        self.log.append(SimpleNamespace(offset=len(self.log), key=key, value=value))

    def mark(self) -> None:
        self.log.append(None)

    async def end_offsets(self, sources: list[Any]) -> dict[Any, int]:
        end = len(self.log)
        if self.late:
            self.put(self.late.pop(), None)
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

    def assign(self, sources: list[Any]) -> None:
        pass

    def seek(self, source: Any, offset: int) -> None:
        self.at = offset


def unwatched(num_waiting: int, as_of_s: float) -> None:
    """Where the lag does not matter."""


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
        async for changes in reader.follow(unwatched):
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
            async for changes in early.follow(unwatched):
                assert changes.offset > seen
                seen = changes.offset
                if seen == len(consumer.log) - 1:
                    break
        assert changes.num_unreadable == 0

    asyncio.run(test())


@pytest.mark.parametrize("num_new", [1, 4, 6])
def test_what_a_topic_that_was_made_anew_does_not_have_is_withdrawn(num_new: int) -> None:
    """By a broker without ids it is noticed where it has less records than before."""

    async def test() -> None:
        consumer, catalogue = Consumer(), LiveCatalogue()
        consumer.late.clear()
        reader = reading(consumer)
        for item_id in (b"a", b"b", b"c", b"d"):
            consumer.put(item_id, b'{"item_id": "%s"}' % item_id)
        catalogue.apply(await reader.changes())
        consumer.log.clear()
        if num_new > 1:
            reader._topic_id, consumer.topic_id = b"the first topic ", b"the second topic"
        for number in range(num_new):
            item_id = b"d" if number == 0 else b"new-%d" % number
            consumer.put(item_id, b'{"item_id": "%s"}' % item_id)
        async with asyncio.timeout(2):
            async for changes in reader.follow(unwatched):
                catalogue.apply(changes)
                break
        shown = {item.item_id for item in catalogue.everything().items.values() if item is not None}
        assert shown == {"d", *(f"new-{number}" for number in range(1, num_new))}
        assert (catalogue.num_items, catalogue.offset) == (num_new, num_new - 1)

    asyncio.run(test())


def test_a_look_at_the_broker_that_fails_loses_no_change() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.late.clear()
        reader = reading(consumer)
        await reader.changes()
        consumer.put(b"a", b'{"item_id": "a"}')
        consumer.failures.append(KafkaConnectionError())
        async with asyncio.timeout(5):
            changes = await anext(reader.follow(unwatched))
        assert changes.items.keys() == {item_hash(b"a")}

    asyncio.run(test())


def lags(meanwhile: list[int]) -> tuple[list[int], list[float]]:
    """What is told of 7 records that are read by three: how many wait, and the time as of which all are known, less that of the
    beginning. ``meanwhile``: how many more are written while the next three are applied.
    """
    seen: list[tuple[int, float]] = []

    async def test() -> None:
        consumer = Consumer()
        consumer.late.clear()
        reader = reading(consumer)
        await reader.changes()
        for _ in range(7):
            consumer.put(b"a", b'{"item_id": "a"}')
        num_told = 0
        async with asyncio.timeout(5):
            async for _ in reader.follow(lambda *lag: seen.append(lag)):
                num_told += 1
                assert len(seen) == num_told, "what is not applied yet counts as waiting"
                if not meanwhile:
                    break
                for _ in range(meanwhile.pop(0)):
                    consumer.put(b"a", b'{"item_id": "a"}')

    asyncio.run(test())
    assert seen[-1][1] <= time.time()
    return [waiting for waiting, _ in seen], [as_of_s - seen[0][1] for _, as_of_s in seen]


def test_records_wait_until_they_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items_reader, "_MAX_AT_ONCE", 3)
    waiting, as_of_s = lags([0, 0, 1])
    assert waiting == [0, 4, 1, 0]
    assert as_of_s[:3] == [0, 0, 0] < as_of_s[3:], "all is known of the time when all was read"


def test_a_topic_that_is_written_to_without_end_is_known_as_of_a_later_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items_reader, "_MAX_AT_ONCE", 3)
    waiting, as_of_s = lags([3, 3, 3])
    assert waiting == [0, 4, 4, 4]
    assert as_of_s[:3] == [0, 0, 0] < as_of_s[3:]
