"""When a partition is ready, what stays over a rebalance, and what a silent broker means.

The consumer is a stand-in: what it does is aiokafka's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, StateError
from stream.gateway.member_states import MemberStates
from stream.gateway.ownership import Ownership
from stream.gateway.state_reader import _OPEN_S, SESSION_TIMEOUT_S, StateReader
from stream.settings import Settings
from tests.property.virtual_time import VirtualLoop

SETTINGS = Settings()
TOPICS = (SETTINGS.intents_topic, SETTINGS.recommendations_topic)


class NotedConsumer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.sought: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.is_silent = False
        self.leaderless: set[TopicPartition] = set()
        self.assigned: set[TopicPartition] = set()
        self.num_partitions = 4
        self.num_rejoins = 0
        self.member_id = "gateway-1"
        self.silent_nodes: set[int] = set()
        self.search_s = 0.0
        self.fetched: dict[TopicPartition, list[Any]] = {}
        #: Of each partition where it is; a partition that is not in it never says so.
        self.positions: dict[TopicPartition, int] = {}
        self.asked: list[TopicPartition] = []
        #: What happens while a fetch or a position is waited for.
        self.meanwhile: Callable[[], Any] = lambda: None
        self._coordinator = self._client = self.cluster = self

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.sought[source] = offset

    def pause(self, *sources: TopicPartition) -> None:
        self.paused.update(sources)

    def brokers(self) -> list[Any]:
        return [SimpleNamespace(nodeId=number) for number in range(4)]

    async def send(self, node: int, request: Any) -> None:
        if self.is_silent or node in self.silent_nodes:
            raise KafkaError("the node does not answer")

    async def end_offsets(self, sources: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.leaderless & set(sources):
            raise KafkaError("no leader answers")
        return dict.fromkeys(sources, 10)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, None]:
        await asyncio.sleep(self.search_s)
        return dict.fromkeys(times)

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        self.meanwhile()
        return self.fetched

    async def position(self, source: TopicPartition) -> int:
        self.asked.append(source)
        self.meanwhile()
        if source not in self.positions:
            await asyncio.Event().wait()
        return self.positions[source]

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def resume(self, source: TopicPartition) -> None:
        self.paused.discard(source)

    def request_rejoin(self) -> None:
        self.num_rejoins += 1

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self.num_partitions))


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def reader(moved: list[Any], clock: Clock | None = None) -> tuple[StateReader, Any]:
    ownership = Ownership("http://g1", 4)
    states = MemberStates(max_members=9, max_bytes=1 << 20)
    found: Any = StateReader(
        SETTINGS, ownership, states, on_moved=lambda own: moved.append(set(own)), clock=clock or Clock()
    )
    found._consumer = NotedConsumer()
    return found, found._consumer


def in_virtual_time(body: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(body)


def parts(*numbers: int) -> set[TopicPartition]:
    return {TopicPartition(topic, number) for topic in TOPICS for number in numbers}


def test_a_partition_is_ready_once_both_of_its_topics_were_read_to_their_ends() -> None:
    found: Any
    found, _ = reader([])
    found.assigned(parts(1))
    assert not found.is_ready(1)
    intents, recommendations = (TopicPartition(topic, 1) for topic in TOPICS)
    found._next |= {intents: 10, recommendations: 0}
    found._until[recommendations] = 5
    assert not found.is_ready(1)
    del found._until[recommendations]
    assert found.is_ready(1)
    assert not found.is_ready(2)


def test_what_was_here_goes_on_where_it_was_and_what_is_new_waits_until_it_is_opened() -> None:
    moved: list[Any] = []
    found: Any
    found, consumer = reader(moved)
    found.assigned(parts(0, 1))
    found._next = dict.fromkeys(parts(0, 1), 7)
    found.assigned(parts(1, 2))
    assert consumer.sought == dict.fromkeys(parts(1), 7)
    assert parts(2) <= consumer.paused
    assert found._to_open == parts(2)
    assert set(found._next) == parts(1)
    assert moved == [{0, 1}, {1, 2}]


@pytest.mark.parametrize("stood_still", [False, True])
def test_a_gateway_that_the_broker_does_not_answer_is_ready_for_no_partition_until_it_has_joined_again(
    stood_still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group gives its partitions to others, and cannot tell it so. One that stood still has not even asked."""

    async def body() -> None:
        moved: list[Any] = []
        clock = Clock()
        found: Any
        found, consumer = reader(moved, clock)
        found.assigned(parts(0))
        found._next = dict.fromkeys(parts(0), 7)
        found._to_open.clear()
        consumer.is_silent = not stood_still
        consumer.assigned = parts(0)
        opening = asyncio.create_task(found._keep_opening())
        touching = asyncio.create_task(found._keep_in_touch())
        if not stood_still:
            clock.now_s += SESSION_TIMEOUT_S
            await _turns(10)
            assert found.is_ready(0)
        clock.now_s += SESSION_TIMEOUT_S + 0.1
        assert not found.is_ready(0)
        await until_held(lambda: moved[1:] == [set()])
        consumer.is_silent = False
        await _turns(30)
        assert moved[1:] == [set()], "its streams are ended once"
        assert consumer.num_rejoins == 1
        assert not found.is_ready(0), "the broker answers; the group has not said whose it is"
        found.assigned(parts(0))
        await until_held(lambda: not consumer.paused)
        assert consumer.sought == dict.fromkeys(parts(0), 7), "it goes on where it was"
        assert not found.is_ready(0), "what came meanwhile is not read yet"
        found._until.clear()
        assert found.is_ready(0)
        for task in (touching, opening):
            task.cancel()

    monkeypatch.setattr("stream.gateway.state_reader._TOUCH_S", 0.001)
    asyncio.run(body())


def test_a_gateway_that_joins_for_longer_than_the_group_waits_is_ready_for_nothing() -> None:
    clock = Clock()
    found: Any
    found, consumer = reader([], clock)
    found.assigned(parts(0))
    found._next = dict.fromkeys(parts(0), 7)
    found.revoked()
    clock.now_s += SESSION_TIMEOUT_S + 0.1
    found._answered_s = clock.now_s
    assert not found.is_ready(0)
    found.assigned(parts(0))
    assert consumer.num_rejoins == 2, "its answer came while nobody looked: it is asked again"
    assert not found.is_ready(0)
    found.assigned(parts(0))
    assert found._to_open == parts(0)


def test_what_was_being_opened_when_the_broker_fell_silent_waits_for_the_group_too() -> None:
    async def body() -> None:
        clock = Clock()
        found: Any
        found, consumer = reader([], clock)
        consumer.assigned = parts(0)
        found.assigned(parts(0))
        clock.now_s += SESSION_TIMEOUT_S + 0.1
        found._note_answer()
        for source in parts(0):
            await found._open(source)
        assert not found.is_ready(0)

    asyncio.run(body())


def test_an_end_that_was_asked_for_before_another_gateway_had_the_partition_opens_nothing() -> None:
    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned, consumer.search_s = parts(0), 5.0
        found.assigned(parts(0))
        source = min(parts(0))
        asked = asyncio.create_task(found._open(source))
        await asyncio.sleep(1)
        found.assigned(set())
        found.assigned(parts(0))
        await asked
        assert source in found._to_open
        assert source not in found._next, "the other one's messages lie behind that end"
        await found._open(source)
        assert source in found._next

    in_virtual_time(body())


def test_an_answer_that_waited_while_the_process_stood_still_says_nothing_of_now() -> None:
    clock = Clock()
    found: Any
    found, consumer = reader([], clock)
    found.assigned(parts(0))
    found._next = dict.fromkeys(parts(0), 7)
    clock.now_s += SESSION_TIMEOUT_S + 0.1
    found._note_answer()
    assert not found.is_ready(0)
    assert consumer.num_rejoins == 1


def test_one_answer_of_several_nodes_is_enough() -> None:
    async def body() -> None:
        clock = Clock()
        found: Any
        found, consumer = reader([], clock)
        consumer.silent_nodes = {0, 1, 2}
        clock.now_s += 5
        await found._touch()
        assert found._answered_s == clock.now_s
        consumer.silent_nodes.add(3)
        clock.now_s += 5
        await found._touch()
        assert found._answered_s == clock.now_s - 5

    asyncio.run(body())


def test_a_gateway_that_the_group_no_longer_knows_is_ready_for_nothing_while_it_joins_again() -> None:
    moved: list[Any] = []
    found: Any
    found, consumer = reader(moved)
    found.assigned(parts(0))
    found._next = dict.fromkeys(parts(0), 7)
    found.revoked()
    assert found.is_ready(0), "in any other rebalance most comes back"
    consumer.member_id = ""
    found.revoked()
    assert not found.is_ready(0)
    assert moved[1:] == [set()]


def test_a_partition_without_a_leader_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned = parts(0, 1)
        consumer.leaderless = parts(0)
        opening = asyncio.create_task(found._keep_opening())
        found.assigned(parts(0, 1))
        await until_held(lambda: found.is_ready(1))
        assert consumer.paused == parts(0)
        consumer.leaderless = set()
        await until_held(lambda: found.is_ready(0))
        assert not consumer.paused
        opening.cancel()

    monkeypatch.setattr("stream.gateway.state_reader._RETRY_S", 0.001)
    asyncio.run(body())


async def _turns(num: int) -> None:
    for _ in range(num):
        await asyncio.sleep(0.001)


async def until_held(holds: Any) -> None:
    async with asyncio.timeout(20):
        while True:
            if holds():
                return
            await asyncio.sleep(0.001)


def test_another_number_of_partitions_ends_the_gateway() -> None:
    """Members are elsewhere now: what it answers would be of others, or of nobody."""
    found: Any
    found, consumer = reader([])
    found._check_partitions()
    consumer.num_partitions = 6
    with pytest.raises(StateError, match="6 partitions now, 4 when the gateway started"):
        found._check_partitions()


def test_a_search_that_takes_seconds_is_waited_for() -> None:
    """By time, in an index that no page cache holds."""

    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned, consumer.search_s = parts(0), 10.0
        found.assigned(parts(0))
        for source in parts(0):
            await found._open(source)
        assert found.is_ready(0)

    in_virtual_time(body())


def test_a_node_that_is_silent_is_given_up_after_a_join_and_before_an_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then nothing else refreshes the metadata: a partition that is being opened waits for it."""
    given: dict[str, Any] = {}

    class Refused(NotedConsumer):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            given.update(options)

        def subscribe(self, topics: list[str], listener: Any) -> None:
            pass

        async def start(self) -> None:
            raise KafkaError("no broker")

        async def stop(self) -> None:
            pass

    async def body() -> None:
        found, _ = reader([])
        with pytest.raises(BrokerError):
            await found.__aenter__()

    monkeypatch.setattr("stream.gateway.state_reader.AIOKafkaConsumer", Refused)
    asyncio.run(body())
    aiokafkas_own = 40_000
    assert given["rebalance_timeout_ms"] < given.get("request_timeout_ms", aiokafkas_own) < 1000 * _OPEN_S


def test_a_position_that_is_not_known_holds_up_no_other_partition() -> None:
    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned = parts(0, 1)
        found.assigned(parts(0, 1))
        found._next = dict.fromkeys(parts(0, 1), 7)
        found._until = dict.fromkeys(sorted(parts(0, 1)), 10)
        consumer.positions = dict.fromkeys(parts(1), 10)
        async with asyncio.timeout(5):
            await found._read()
        assert [found.is_ready(0), found.is_ready(1)] == [False, True]

    in_virtual_time(body())


def test_a_cut_while_a_position_is_waited_for_is_no_failure_and_the_others_are_not_asked() -> None:
    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned = parts(0)
        found.assigned(parts(0))
        found._next, found._until = dict.fromkeys(parts(0), 7), dict.fromkeys(parts(0), 10)
        consumer.meanwhile = lambda: consumer.asked and found._leave()
        await found._read()
        assert len(consumer.asked) == 1
        assert not found.is_ready(0)

    in_virtual_time(body())


def test_a_position_of_before_a_cut_makes_no_partition_ready_that_has_an_hour_to_read_since() -> None:
    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned = parts(0)
        found.assigned(parts(0))
        found._next, found._until = dict.fromkeys(parts(0), 7), dict.fromkeys(parts(0), 8)
        consumer.positions = dict.fromkeys(parts(0), 8)

        def cut_and_come_back() -> None:
            if len(consumer.asked) == 1:
                found._leave()
                found.assigned(parts(0))
                found._next, found._until = dict.fromkeys(parts(0), 7), dict.fromkeys(parts(0), 10)

        consumer.meanwhile = cut_and_come_back
        await found._read()
        assert not found.is_ready(0)

    in_virtual_time(body())


def test_what_was_being_fetched_when_a_gateway_was_cut_off_makes_no_partition_ready() -> None:
    """It comes when the broker answers again, and the group has not said yet whose the partition is."""

    async def body() -> None:
        clock = Clock()
        found: Any
        found, consumer = reader([], clock)
        found.assigned(parts(0))
        found._next = dict.fromkeys(parts(0), 7)
        message = {"user_id": "u", "bundle": "b1", "source": {"partition": 0, "offset": 1}}
        record = SimpleNamespace(key=b"u", value=json.dumps(message).encode(), offset=7)
        consumer.fetched = {source: [record] for source in parts(0)}

        def stand_still() -> None:
            clock.now_s += SESSION_TIMEOUT_S + 0.1
            found._check_contact()

        consumer.meanwhile = stand_still
        await found._read()
        assert not found.is_cut_off, "the broker has answered"
        assert not found.is_ready(0)
        assert not len(found._states), "what is kept is of partitions of this gateway"

    asyncio.run(body())


def test_a_partition_that_was_another_gateways_meanwhile_is_read_back_and_does_not_go_on_where_it_was() -> None:
    """Its members were dropped: those who did not change since the cut would be unknown."""

    async def body() -> None:
        found: Any
        found, consumer = reader([])
        found.assigned(parts(0))
        found._next = dict.fromkeys(parts(0), 7)
        found._leave()
        found.assigned(parts(1))
        consumer.assigned = parts(0)
        found.assigned(parts(0))
        for source in parts(0):
            await found._open(source)
        assert consumer.sought == dict.fromkeys(parts(0), 10), "where the search by time says"

    asyncio.run(body())


def test_a_partition_that_is_being_opened_for_long_holds_up_none_that_comes_later() -> None:
    async def body() -> None:
        found: Any
        found, consumer = reader([])
        consumer.assigned, consumer.search_s = parts(0, 1), 15.0
        opening = asyncio.create_task(found._keep_opening())
        found.assigned(parts(0))
        await asyncio.sleep(1)
        consumer.search_s = 0.0
        found.assigned(parts(0, 1))
        await asyncio.sleep(1)
        assert [found.is_ready(0), found.is_ready(1)] == [False, True]
        await asyncio.sleep(14)
        assert found.is_ready(0)
        opening.cancel()

    in_virtual_time(body())
