"""Reading the items topic to its end and going on from there, while it is written to."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError, UnknownTopicOrPartitionError
from aiokafka.protocol.offset import OffsetRequest

from intentrec_core.errors import BrokerError
from stream.kafka import items_reader
from stream.kafka.items_reader import ItemsReader
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.settings import Settings
from stream.wire.catalogue_record import item_hash


class Consumer:
    """A log whose end reading meets in the worst moment.

    It gets a record right after a look at its end; a fetch returns it too, as a broker's does. A marker of a
    transaction is in the log, but in no fetch. ``topic_id``: all zeros, as a broker without ids has it; ``answers``: ids that are
    answered before it; ``knows_requests``: whether the broker knows the request for ids. ``num_open``: records at the end whose
    transaction has not ended. ``late``: keys of the records without a value that come after a look at the end, one a look.
    """

    def __init__(self, late: Sequence[bytes] = (b"a",)) -> None:
        self.log: list[Any] = []
        self.at = 0
        self.late = list(late)
        self.topic_id = bytes(16)
        self.failures: list[KafkaError] = []
        self.answers: list[bytes] = []
        self.is_assigned = True
        self.num_partitions, self.num_open, self.knows_requests = 1, 0, True
        self._client = SimpleNamespace(
            cluster=SimpleNamespace(
                leader_for_partition=lambda source: 1, partitions_for_topic=lambda topic: {*range(self.num_partitions)}
            ),
            get_random_node=lambda: 2,
            send=self._send,
            force_metadata_update=self._update,
        )

    async def _update(self) -> bool:
        await asyncio.sleep(0)
        return True

    async def _send(self, node: int, request: Any) -> Any:
        assert node == 1, "the leader's answer counts"
        if self.failures:
            raise self.failures.pop()
        if isinstance(request, OffsetRequest):
            error = 0 if self.num_partitions else UnknownTopicOrPartitionError.errno
            end = len(self.log) - (self.num_open if request._isolation_level else 0)
            return SimpleNamespace(topics=[("items", [(0, error, -1, end)])])
        if not self.knows_requests:
            raise NotImplementedError  # as aiokafka does where a broker does not know the request
        topic_id = self.answers.pop(0) if self.answers else self.topic_id
        return SimpleNamespace(topics=[(0, "items", topic_id, False, [()] * self.num_partitions, 0, {})])

    def put(self, key: bytes, value: bytes | None) -> None:
        self.log.append(SimpleNamespace(offset=len(self.log), key=key, value=value))

    def mark(self) -> None:
        self.log.append(None)

    async def end_offsets(self, sources: list[Any]) -> dict[Any, int]:
        end = len(self.log) - self.num_open
        if self.late:
            self.put(self.late.pop(), None)
        return dict.fromkeys(sources, end)

    async def beginning_offsets(self, sources: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(sources, 0)

    async def getmany(self, source: Any, *, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        await asyncio.sleep(0)
        if self.at > len(self.log):
            raise OffsetOutOfRangeError({source: self.at})
        found = self.log[self.at : min(self.at + max_records, len(self.log) - self.num_open)]
        self.at += len(found)
        records = [record for record in found if record is not None]
        return {source: records} if records else {}

    async def position(self, source: Any) -> int:
        return self.at

    def assign(self, sources: list[Any]) -> None:
        self.is_assigned = True

    def unsubscribe(self) -> None:
        self.is_assigned = False

    def seek(self, source: Any, offset: int) -> None:
        self.at = offset


def unwatched(num_waiting: float, as_of_s: float) -> None:
    """Where the lag does not matter."""


def reading(consumer: Any, *, exact: bool = True) -> ItemsReader:
    """A reader of this log, at its beginning."""
    reader = ItemsReader(Settings.load())
    reader._consumer, reader._exact_ends = consumer, exact
    return reader


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(items_reader, "_RETRY_S", 0.0)


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
        consumer, catalogue = Consumer(late=()), LiveCatalogue()
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
        consumer = Consumer(late=())
        reader = reading(consumer)
        await reader.changes()
        consumer.put(b"a", b'{"item_id": "a"}')
        consumer.failures.append(KafkaConnectionError())
        async with asyncio.timeout(5):
            changes = await anext(reader.follow(lambda num_waiting, _: waiting.append(num_waiting)))
        assert changes.items.keys() == {item_hash(b"a")}

    waiting: list[float] = []
    asyncio.run(test())
    assert [math.isnan(num_waiting) for num_waiting in waiting] == [False, True, False]


OLD, NEW = b"the first topic ", b"the second topic"


@pytest.mark.parametrize("known", [None, OLD])
def test_brokers_without_topic_ids_make_no_topic_anew(known: bytes | None) -> None:
    """As during an upgrade, when the partition moves to brokers with ids and back."""

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        reader._topic_id = known
        consumer.put(b"a", b'{"item_id": "a"}')
        await reader.changes()
        following = reader.follow(unwatched)
        async with asyncio.timeout(5):
            for answer in (OLD, bytes(16), OLD, bytes(16), NEW):
                consumer.topic_id = answer
                consumer.put(b"b", b'{"item_id": "b"}')
                assert (await anext(following)).is_whole == (answer == NEW)

    asyncio.run(test())


def test_a_broker_that_contradicts_itself_keeps_no_worker_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay_s: float) -> None:
        pauses.append(delay_s)
        await sleep(0)

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        reader._topic_id, consumer.topic_id = OLD, NEW
        consumer.put(b"a", b'{"item_id": "a"}')
        await reader.changes()
        following = reader.follow(unwatched)
        for number in range(3):
            consumer.topic_id = b"the topic no. %02d" % number
            consumer.put(b"a", b'{"item_id": "a"}')
            assert (await anext(following)).is_whole

    monkeypatch.setattr(asyncio, "sleep", noted)
    asyncio.run(test())
    assert sum(pause > items_reader._REREAD_INTERVAL_S - 1 for pause in pauses) == 2


async def turns(num: int) -> None:
    for _ in range(num):
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone first", "made anew at once"])
@pytest.mark.usefixtures("no_pause")
def test_a_new_topic_without_a_record_changes_nothing(is_gone: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Empty lists for the time until it is filled help no member. That nothing is known is told, and warned of once."""
    seen: list[tuple[float, float]] = []

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        reader._topic_id = OLD
        consumer.put(b"a", b'{"item_id": "a"}')
        await reader.changes()
        if is_gone:
            consumer.failures += [UnknownTopicOrPartitionError()] * 10_000
        change = asyncio.create_task(anext(reader.follow(lambda *lag: seen.append(lag))))
        async with asyncio.timeout(5):
            if is_gone:
                await turns(1000)
                assert math.isnan(seen[-1][0])
                assert not consumer.is_assigned
            consumer.topic_id = NEW
            consumer.failures.clear()
            consumer.log.clear()
            await turns(1000)
            assert "holds no item" in caplog.text
            assert not change.done()
            consumer.put(b"b", b'{"item_id": "b"}')
            changes = await change
        assert (changes.is_whole, changes.items.keys()) == (True, {item_hash(b"b")})

    with caplog.at_level(logging.WARNING):
        asyncio.run(test())
    assert math.isnan(seen[-1][0])
    assert {as_of_s for _, as_of_s in seen} == {seen[0][1]}, "nothing is known of a later time"
    assert caplog.text.count("intentrec topics, then intentrec items sync FILE") == is_gone
    assert caplog.text.count("holds no item") == 1


FIRST_RECORDS = {
    "withdrawn by hand": b'{"item_id": "a", "withdrawn": true}',
    "tombstone": None,
    "unreadable": b"not JSON",
}


@pytest.mark.parametrize("value", FIRST_RECORDS.values(), ids=FIRST_RECORDS)
@pytest.mark.usefixtures("no_pause")
def test_what_a_new_topic_without_an_item_withdraws_is_withdrawn_and_nothing_else(value: bytes | None) -> None:
    async def test() -> None:
        consumer, catalogue = Consumer(late=()), LiveCatalogue()
        reader = reading(consumer)
        reader._topic_id = consumer.topic_id = OLD
        consumer.put(b"a", b'{"item_id": "a"}')
        consumer.put(b"b", b'{"item_id": "b"}')
        catalogue.apply(await reader.changes())
        consumer.topic_id = NEW
        consumer.log.clear()
        consumer.put(b"a", value)
        following = reader.follow(unwatched)
        async with asyncio.timeout(5):
            catalogue.apply(await anext(following))
            assert (catalogue.num_items, catalogue.offset) == (1, 0)
            assert catalogue.everything().items[item_hash(b"a")] is None
            change = asyncio.create_task(anext(following))
            await turns(1000)
            assert not change.done(), "told once"
            consumer.put(b"c", b'{"item_id": "c"}')
            catalogue.apply(await change)
        assert {item.item_id for item in catalogue.everything().items.values() if item is not None} == {"c"}

    asyncio.run(test())


def test_what_an_open_transaction_holds_back_waits() -> None:
    """A withdrawal after it is in no fetch: the broker gives out what is committed, up to the first open transaction."""
    seen: list[tuple[float, float]] = []

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        consumer.put(b"a", b'{"item_id": "a"}')
        await reader.changes()
        began_s = reader._as_of_s
        consumer.put(b"z", b'{"item_id": "z"}')
        consumer.put(b"a", None)
        consumer.num_open = 2
        change = asyncio.create_task(anext(reader.follow(lambda *lag: seen.append(lag))))
        async with asyncio.timeout(5):
            await turns(100)
            assert len(seen) > 2
            assert set(seen[1:]) == {(2, began_s)}
            await reader.changes()
            assert reader._as_of_s == began_s
            consumer.num_open = 0
            assert item_hash(b"a") in (await change).items

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items_reader, "_LOOK_INTERVAL_S", 0.0)
        asyncio.run(test())


@pytest.mark.parametrize("is_anew", [True, False], ids=["made anew", "partitions added"])
@pytest.mark.usefixtures("no_pause")
def test_a_topic_with_several_partitions_is_not_read(is_anew: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Lists stay as they are, and the log says what to do."""
    seen: list[float] = []

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        reader._topic_id = consumer.topic_id = OLD
        consumer.put(b"a", b'{"item_id": "a"}')
        await reader.changes()
        consumer.num_partitions = 3
        if is_anew:
            consumer.topic_id = NEW
            consumer.log.clear()
        consumer.put(b"b", b'{"item_id": "b"}')
        change = asyncio.create_task(anext(reader.follow(lambda num_waiting, _: seen.append(num_waiting))))
        async with asyncio.timeout(5):
            await turns(1000)
            assert math.isnan(seen[-1])
            assert not change.done()
            with pytest.raises(BrokerError, match=r"has 3 partitions; allowed: one, .* intentrec topics"):
                await reader.changes()
            consumer.num_partitions = 1
            assert (await change).is_whole == is_anew

    with caplog.at_level(logging.WARNING):
        asyncio.run(test())
    assert caplog.text.count("has 3 partitions") == 1


@pytest.mark.parametrize("when", ["before", "while"])
@pytest.mark.usefixtures("no_pause")
def test_a_topic_that_is_made_anew_before_it_is_followed_is_read_from_its_beginning(when: str) -> None:
    """As while a worker waits for its first bundle."""

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        reader._topic_id, consumer.topic_id = OLD, NEW
        consumer.answers = [OLD] if when == "while" else []
        consumer.put(b"a", b'{"item_id": "a"}')
        consumer.put(b"b", b'{"item_id": "b"}')
        consumer.at = 1  # the first record was fetched ahead, of the topic before
        assert (await reader.changes()).items.keys() == {item_hash(b"a"), item_hash(b"b")}

    asyncio.run(test())


@pytest.mark.parametrize("knows_requests", [True, False])
@pytest.mark.usefixtures("no_pause")
def test_a_topic_that_is_gone_is_named_whether_or_not_the_broker_has_ids(
    knows_requests: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        await reader.changes()
        consumer.num_partitions, consumer.knows_requests = 0, knows_requests
        if knows_requests:
            consumer.failures += [UnknownTopicOrPartitionError()] * 10_000
        change = asyncio.create_task(anext(reader.follow(unwatched)))
        await turns(1000)
        assert not consumer.is_assigned
        with pytest.raises(BrokerError, match="does not exist; create it: intentrec topics"):
            await reader.changes()
        change.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(test())
    assert caplog.text.count("does not exist; lists stay as they are until it is filled") == 1


def lags(meanwhile: list[int]) -> tuple[list[float], list[float]]:
    """What is told of 7 records that are read by three: how many wait, and the time as of which all are known, less that of the
    beginning; before each change and once it is applied. ``meanwhile``: how many more are written while the next three are
    applied.
    """
    seen: list[tuple[float, float]] = []

    async def test() -> None:
        consumer = Consumer(late=())
        reader = reading(consumer)
        await reader.changes()
        for _ in range(7):
            consumer.put(b"a", b'{"item_id": "a"}')
        num_told = 0
        async with asyncio.timeout(5):
            async for _ in reader.follow(lambda *lag: seen.append(lag)):
                num_told += 2
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
    assert waiting == [0, 7, 4, 4, 1, 1, 0, 1]
    assert as_of_s[:6] == [0] * 6 < as_of_s[6:], "all is known of the time when all was read"


def test_a_topic_that_is_written_to_without_end_is_known_as_of_a_later_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items_reader, "_MAX_AT_ONCE", 3)
    waiting, as_of_s = lags([3, 3, 3])
    assert waiting == [0, 7, 4, 7, 4, 7, 4, 7]
    assert as_of_s[:6] == [0] * 6 < as_of_s[6:]
