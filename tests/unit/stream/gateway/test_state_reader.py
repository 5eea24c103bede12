"""When a partition is ready, and what stays over a rebalance. The consumer is a stand-in: what it does is aiokafka's."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition

from stream.gateway.member_states import MemberStates
from stream.gateway.ownership import Ownership
from stream.gateway.state_reader import StateReader
from stream.settings import Settings

SETTINGS = Settings()
TOPICS = (SETTINGS.intents_topic, SETTINGS.recommendations_topic)


class NotedConsumer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.sought: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.sought[source] = offset

    def pause(self, *sources: TopicPartition) -> None:
        self.paused.update(sources)


def reader(moved: list[Any]) -> tuple[StateReader, Any]:
    ownership = Ownership("http://g1", 4)
    states = MemberStates(max_members=9, max_bytes=1 << 20)
    found: Any = StateReader(SETTINGS, ownership, states, on_moved=lambda own: moved.append(set(own)))
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
