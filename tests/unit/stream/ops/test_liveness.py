"""What counts as a stall, and what does not."""

from __future__ import annotations

import pytest

from stream.ops.liveness import WorkProgress


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_idle_worker_is_never_stalled(clock: Clock) -> None:
    progress = WorkProgress(clock)
    clock.now_s += 1000
    assert progress.stalled_s() == 0


def test_plays_that_are_not_committed_are_a_stall_from_their_arrival(clock: Clock) -> None:
    progress = WorkProgress(clock)
    progress.work_arrived(0)
    clock.now_s += 30
    progress.work_arrived(0)
    assert progress.stalled_s() == 30


def test_every_commit_is_progress_even_when_more_is_waiting(clock: Clock) -> None:
    progress = WorkProgress(clock)
    progress.work_arrived(0)
    clock.now_s += 30
    progress.work_done(0, idle=False)
    clock.now_s += 2
    assert progress.stalled_s() == 2
    progress.work_done(0, idle=True)
    assert progress.stalled_s() == 0


def test_a_consumer_that_fetches_nothing_of_what_there_is_is_a_stall(clock: Clock) -> None:
    progress = WorkProgress(clock)
    progress.saw_lag({0})
    clock.now_s += 10
    progress.saw_lag({0})
    assert progress.stalled_s() == 10
    progress.saw_lag(set())
    assert progress.stalled_s() == 0
    progress.saw_lag({0})
    clock.now_s += 5
    progress.work_arrived(0)
    assert progress.stalled_s() == 0, "plays arrived after all"


def test_a_partition_that_stands_still_is_a_stall_whatever_the_others_get_done(clock: Clock) -> None:
    progress = WorkProgress(clock)
    for second in range(600):
        progress.work_arrived(1)
        if second % 5 == 0:
            progress.saw_lag({0})
        clock.now_s += 1
        progress.work_done(1, idle=second % 2 == 0)
    assert progress.stalled_s() == 600


def test_a_partition_whose_plays_are_never_committed_is_a_stall_whatever_the_others_get_done(clock: Clock) -> None:
    progress = WorkProgress(clock)
    progress.work_arrived(0)
    for second in range(600):
        progress.work_arrived(1)
        clock.now_s += 1
        progress.work_done(1, idle=second % 2 == 0)
    assert progress.stalled_s() == 600
    progress.work_done(0, idle=True)
    assert progress.stalled_s() == 0


def test_while_the_broker_is_away_nothing_is_a_stall_and_then_everything_has_its_full_time(clock: Clock) -> None:
    progress = WorkProgress(clock)
    progress.work_arrived(0)
    progress.saw_lag({1})
    for _ in range(60):
        clock.now_s += 10
        progress.broker_away()
    assert progress.stalled_s() == 0
    clock.now_s += 50
    assert progress.stalled_s() == 50, "the plays of before are still to be committed"
