"""The lag monitor: a fetcher that makes no progress, a partition that is not opened, a broker that is down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from stream.delivery.lag_monitor import watch_lag
from stream.kafka.broker_checks import can_read_end_offsets, look_deadline_s
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import NUM_PARTITIONS

DOWN = "down"


class Watched:
    """A worker with partitions 0 and 1 and their source, as the monitor sees them; ``positions`` are (fetched, end).

    ``seen``: the partitions without progress at each look, or DOWN.
    """

    def __init__(self) -> None:
        self.assigned = frozenset({0, 1})
        self.joined = True
        self.tasks = {partition: SimpleNamespace(next_fetch=100) for partition in (0, 1)}
        self.cut_off: bool | None = None
        self.positions = {0: (100, 100), 1: (100, 100)}
        self.error: Exception | None = None
        self.broker_is_up = True
        self.capacity = True
        self.seen: list[set[int] | str] = []
        self.lags: list[int] = []
        self.overload_saw: list[int] = []
        self.progress = SimpleNamespace(
            saw_lag=self.seen.append,
            broker_away=lambda: self.seen.append(DOWN),
        )
        self.metrics = SimpleNamespace(lag=self.lags.append)
        self.overload = SimpleNamespace(saw_lag=self.overload_saw.append)

    def fetchable(self) -> dict[int, Any]:
        return self.tasks

    def saw_broker(self, *, answers: bool) -> None:
        self.cut_off = not answers

    def lag_plays(self, task: Any, end: int) -> int:
        return int(end - task.next_fetch)

    def unopened(self) -> set[int]:
        return set(self.assigned - self.tasks.keys())

    def had_capacity(self) -> bool:
        return self.capacity

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        if self.error is not None:
            raise self.error
        return {partition: self.positions[partition] for partition in partitions}

    async def broker_answers(self, partitions: set[int]) -> bool:
        return self.broker_is_up

    def look(self, *changes: Callable[[], object]) -> list[set[int] | str]:
        """Looks a few times, and again after each change; returns what the last look saw each time."""

        async def looked() -> list[set[int] | str]:
            watching = asyncio.ensure_future(watch_lag(self, self, 0.001, self.broker_answers))
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


def test_a_worker_at_the_end_of_the_log_has_no_lag(watched: Watched) -> None:
    watched.look()
    assert not any(watched.seen)
    assert set(watched.lags) == {0}


def test_a_partition_without_progress_is_reported_and_no_other(watched: Watched) -> None:
    watched.positions[1] = (100, 130)
    watched.look()
    assert watched.seen[:3] == [set(), {1}, {1}], "the first look has nothing to compare with"
    assert set(watched.lags) == set(watched.overload_saw) == {30}


def test_without_capacity_no_progress_is_expected(watched: Watched) -> None:
    watched.positions[1] = (100, 130)
    watched.capacity = False
    watched.look()
    assert not any(watched.seen)


def test_a_partition_that_is_not_opened_is_reported_and_keeps_its_lag(watched: Watched) -> None:
    watched.positions[1] = (130, 130)

    def not_opened() -> None:
        del watched.tasks[1]
        watched.capacity = False  # a partition without a task does not wait for capacity

    def gone() -> None:
        assert watched.lags[-1] == 30
        watched.assigned = frozenset({0})

    assert watched.look(not_opened, gone) == [set(), {1}, set()]
    assert watched.lags[-1] == 0


@pytest.mark.parametrize("error", [TimeoutError(), KafkaConnectionError()])
def test_a_consumer_that_gets_no_answer_where_a_fresh_one_does_is_stuck(watched: Watched, error: Exception) -> None:
    watched.error = error
    assert watched.look() == [{0, 1}]


@pytest.mark.parametrize("has_partitions", [True, False])
def test_a_worker_that_gets_no_answers_is_cut_off_until_it_does(watched: Watched, has_partitions: bool) -> None:
    if not has_partitions:
        watched.assigned = frozenset()
        watched.tasks.clear()
    cut_off: list[bool | None] = []

    def silent() -> None:
        cut_off.append(watched.cut_off)
        watched.error = TimeoutError()

    def back() -> None:
        cut_off.append(watched.cut_off)
        watched.error = None

    watched.look(silent, back)
    assert [*cut_off, watched.cut_off] == [False, True, False]


def test_a_broker_that_answers_no_client_is_down(watched: Watched) -> None:
    def down() -> None:
        watched.error, watched.broker_is_up = KafkaConnectionError(), False

    def back() -> None:
        watched.error, watched.broker_is_up = None, True

    assert watched.look(down, watched.tasks.clear, back) == [set(), DOWN, DOWN, {0, 1}], (
        "and opened no partition meanwhile"
    )


def test_a_fresh_client_reads_the_end_offsets_of_a_broker_that_is_up(
    embedded_broker: Broker, make_rig: RigMaker
) -> None:
    settings = make_rig(embedded_broker).settings
    unreachable = Settings.load(broker="127.0.0.1:1")
    partitions = set(range(NUM_PARTITIONS))
    assert asyncio.run(can_read_end_offsets(settings, 10.0, partitions))
    assert not asyncio.run(can_read_end_offsets(unreachable, 10.0, partitions))


def test_several_looks_fit_into_the_deadline() -> None:
    assert look_deadline_s(Settings.load(progress_deadline_s=60)) == 5
    assert look_deadline_s(Settings.load(progress_deadline_s=6)) == pytest.approx(1.2)
