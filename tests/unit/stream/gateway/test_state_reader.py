"""When a partition is ready, what stays over a rebalance, and what a silent broker means.

The consumer is a stand-in: what it does is aiokafka's.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from intentrec_core.errors import StateError
from stream.gateway.member_states import MemberStates
from stream.gateway.ownership import Ownership
from stream.gateway.state_reader import SESSION_TIMEOUT_S, StateReader
from stream.settings import Settings

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
        return dict.fromkeys(times)

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
