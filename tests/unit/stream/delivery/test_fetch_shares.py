"""A fetch is shared by the partitions that have plays, and the next one is gathered if they are many: aiokafka's own fetcher and
results, over logs in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult
from aiokafka.errors import TopicAuthorizationFailedError
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from stream.delivery.gathering import Gathering
from stream.delivery.transport import BatchConsumerThread
from stream.wire.records import Fetched

LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def close_the_loop() -> Iterator[None]:
    yield
    LOOP.close()


class Chunk:
    """The plays of one answer of the broker, from ``start`` to ``end``."""

    def __init__(self, start: int, end: int) -> None:
        self.next_fetch_offset = start
        self.end = end

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.next_fetch_offset == self.end:
            raise StopIteration
        self.next_fetch_offset += 1
        return self.next_fetch_offset - 1


class Position:
    """Of a partition that is assigned and not paused; aiokafka's own belongs to an event loop."""

    has_valid_position, paused, position = True, False, 0

    def consumed_to(self, position: int) -> None:
        self.position = position


class Logs:
    """Partitions of which a consumer has fetched a chunk each, and the rest has to be fetched when a chunk is empty."""

    def __init__(self, sizes: list[int], chunk: int) -> None:
        self.ends = {TP("plays", number): size for number, size in enumerate(sizes)}
        self.taken: dict[TP, list[int]] = {tp: [] for tp in self.ends}
        self._chunk, self._chunks = chunk, dict[TP, Chunk]()
        self._states = {tp: Position() for tp in self.ends}
        self.fetcher = Fetcher.__new__(Fetcher)
        self.fetcher._closed, self.fetcher._wait_consume_future = False, None
        self.fetcher._fetch_waiters = set()
        self.fetcher._records = OrderedDict()
        self.fetcher._subscriptions = SimpleNamespace(
            reassignment_in_progress=False,
            is_assigned=self.ends.__contains__,
            fetch_context=contextlib.nullcontext,
        )
        assignment = SimpleNamespace(active=True, state_value=self._states.__getitem__)
        self._assignment = assignment
        self._consumer: Any = SimpleNamespace(
            _fetcher=self.fetcher,
            _closed=False,
            assignment=lambda: set(self.ends),
            _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)),
        )
        self._thread = BatchConsumerThread.__new__(BatchConsumerThread)
        self._thread.consumer = SimpleNamespace(flow_active=True)
        self._thread._served = {}
        self._thread._gathering, self._thread._gathered_bytes = Gathering(800, lambda: 0.0), 65536

    def refill(self) -> None:
        """What a broker's answer adds: a chunk for each partition without one."""
        for tp, end in self.ends.items():
            start = self._states[tp].position
            if tp not in self.fetcher._records and start < end:
                chunk = self._chunks[tp] = Chunk(start, min(start + self._chunk, end))
                self.fetcher._records[tp] = FetchResult(
                    tp, assignment=self._assignment, partition_records=chunk, backoff=0
                )

    def waiting(self) -> dict[TP, int]:
        """By partition, plays that the consumer has and that were not taken; none of a chunk that ended with the last fetch."""
        return {tp: self._chunks[tp].end - self._chunks[tp].next_fetch_offset for tp in self.fetcher._records}

    def take(self, max_records: int, only: set[TP] | None = None) -> dict[TP, Fetched]:
        """One fetch; what it covers goes on where the last one ended."""
        fetched: dict[TP, Fetched] = LOOP.run_until_complete(
            self._thread._fetch_records(self._consumer, only or set(self.ends), timeout=0, max_records=max_records)
        )
        for tp, batch in fetched.items():
            assert batch.start == len(self.taken[tp])
            self.taken[tp] += batch.records
            assert batch.end == len(self.taken[tp])
        return fetched


@given(st.lists(st.integers(0, 300), min_size=1, max_size=9), st.integers(1, 120), st.integers(9, 100))
def test_every_partition_with_plays_has_its_share_of_every_fetch(sizes: list[int], chunk: int, most: int) -> None:
    logs = Logs(sizes, chunk)
    while sum(map(len, logs.taken.values())) < sum(sizes):
        logs.refill()
        waiting = logs.waiting()
        taken = {tp: len(batch.records) for tp, batch in logs.take(most).items()}
        assert sum(taken.values()) <= most
        assert all(taken.get(tp, 0) >= min(num, most // len(waiting)) for tp, num in waiting.items())
    assert all(plays == list(range(logs.ends[tp])) for tp, plays in logs.taken.items())


def test_a_partition_that_comes_later_is_not_behind_the_others_backlog() -> None:
    logs = Logs([5000, 5000, 5000, 0], 5000)
    logs.refill()
    logs.take(2000)
    logs.ends[late := TP("plays", 3)] = 5000
    logs.refill()
    assert len(logs.take(2000)[late].records) == 500
    assert {len(plays) for plays in logs.taken.values()} == {500, 1166, 1167}


def test_more_partitions_than_a_fetch_has_shares_take_turns() -> None:
    logs = Logs([100] * 150, 100)
    logs.refill()
    fetches = [set(logs.take(64)) for _ in range(3)]
    assert [len(fetch) for fetch in fetches] == [64, 64, 64]
    assert set.union(*fetches) == set(logs.ends)


def test_only_the_partitions_that_are_asked_for_share() -> None:
    logs = Logs([50, 50, 50], 50)
    logs.refill()
    wanted = {TP("plays", 0), TP("plays", 2)}
    assert {tp: len(batch.records) for tp, batch in logs.take(30, wanted).items()} == dict.fromkeys(wanted, 15)


def test_a_partition_that_failed_costs_the_others_no_play() -> None:
    logs = Logs([50, 50], 50)
    logs.refill()
    logs.fetcher._records[TP("plays", 1)] = FetchError(error=TopicAuthorizationFailedError(), backoff=0)
    with pytest.raises(TopicAuthorizationFailedError):
        logs.take(40)
    logs.take(40)
    assert logs.taken[TP("plays", 0)] == list(range(40))


def test_the_next_request_asks_for_any_play_until_plays_are_many() -> None:
    logs = Logs([2000, 2000], 1000)
    asked = []
    for most in (100, 100, 2000):
        logs.refill()
        logs.take(most)
        asked.append(logs.fetcher._fetch_min_bytes)
    assert asked == [1, 1, 65536]
