"""The watch on the log's end: a fetcher that stands still, a partition nobody opens, a broker that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from stream.delivery.lag_monitor import look_deadline_s, tells_where_plays_end, watch_lag
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import NUM_PARTITIONS

AWAY = "away"


class Watched:
    """A worker with partitions 0 and 1 and their source, as the watch sees them; ``positions`` are (fetched, end).

    ``seen`` are the partitions that stood still at each look, or AWAY.
    """

    def __init__(self) -> None:
        self.assigned = frozenset({0, 1})
        self.lives = {partition: SimpleNamespace(committed_offset=100) for partition in (0, 1)}
        self.positions = {0: (100, 100), 1: (100, 100)}
        self.error: Exception | None = None
        self.tells_others = True
        self.room = True
        self.seen: list[set[int] | str] = []
        self.lags: list[int] = []
        self.overload_saw: list[int] = []
        self.progress = SimpleNamespace(saw_lag=self.seen.append, broker_away=lambda: self.seen.append(AWAY))
        self.figures = SimpleNamespace(lag=self.lags.append)
        self.overload = SimpleNamespace(saw_lag=self.overload_saw.append)

    def fetchable(self) -> dict[int, Any]:
        return self.lives

    def unopened(self) -> set[int]:
        return set(self.assigned - self.lives.keys())

    def had_capacity(self) -> bool:
        return self.room

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        if self.error is not None:
            raise self.error
        return {partition: self.positions[partition] for partition in partitions}

    async def asked_by_others(self, partitions: set[int]) -> bool:
        assert partitions
        return self.tells_others

    def look(self, *changes: Callable[[], object]) -> list[set[int] | str]:
        """Looks a few times, again after each change; returns what the last look of each saw."""

        async def looked() -> list[set[int] | str]:
            watching = asyncio.ensure_future(watch_lag(self, self, 0.001, self.asked_by_others))
            last = []
            for change in (lambda: None, *changes):
                change()
                num_seen = len(self.seen)
                while len(self.seen) < num_seen + 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                last.append(self.seen[-1])
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            return last

        return asyncio.run(looked())


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_worker_at_the_end_of_the_log_is_not_behind(watched: Watched) -> None:
    watched.look()
    assert not any(watched.seen)
    assert set(watched.lags) == {0}


def test_a_partition_that_stands_still_is_behind_and_no_other(watched: Watched) -> None:
    watched.positions[1] = (100, 130)
    watched.look()
    assert watched.seen[:3] == [set(), {1}, {1}], "the first look has nothing to compare with"
    assert set(watched.lags) == set(watched.overload_saw) == {30}


def test_while_there_is_no_room_nothing_is_expected_to_move(watched: Watched) -> None:
    watched.positions[1] = (100, 130)
    watched.room = False
    watched.look()
    assert not any(watched.seen)


def test_a_partition_that_nobody_opens_is_behind_and_keeps_its_lag(watched: Watched) -> None:
    watched.positions[1] = (130, 130)

    def nobody_opens() -> None:
        del watched.lives[1]
        watched.room = False  # what is not open waits for no room

    def gone() -> None:
        assert watched.lags[-1] == 30
        watched.assigned = frozenset({0})

    assert watched.look(nobody_opens, gone) == [set(), {1}, set()]
    assert watched.lags[-1] == 0


@pytest.mark.parametrize("error", [TimeoutError(), KafkaConnectionError()])
def test_a_consumer_that_is_told_nothing_where_others_are_hangs(watched: Watched, error: Exception) -> None:
    watched.error = error
    assert watched.look() == [{0, 1}]


def test_a_broker_that_tells_nobody_anything_is_away(watched: Watched) -> None:
    def away() -> None:
        watched.error, watched.tells_others = KafkaConnectionError(), False

    def back() -> None:
        watched.error, watched.tells_others = None, True

    assert watched.look(away, watched.lives.clear, back) == [set(), AWAY, AWAY, {0, 1}], "and opens nothing meanwhile"


def test_a_client_that_comes_anew_is_told_where_the_plays_end(embedded_broker: Broker, make_rig: RigMaker) -> None:
    settings = make_rig(embedded_broker).settings
    nobody = Settings.load(broker="127.0.0.1:1")
    partitions = set(range(NUM_PARTITIONS))
    assert asyncio.run(tells_where_plays_end(settings, 10.0, partitions))
    assert not asyncio.run(tells_where_plays_end(nobody, 10.0, partitions))


def test_several_looks_fit_into_the_deadline() -> None:
    assert look_deadline_s(Settings.load(progress_deadline_s=60)) == 5
    assert look_deadline_s(Settings.load(progress_deadline_s=6)) == pytest.approx(1.2)
