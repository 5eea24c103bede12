"""What counts as a stall, and what does not."""

from __future__ import annotations

import pytest

from stream.progress import Progress


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_idle_worker_is_never_stalled(clock: Clock) -> None:
    progress = Progress(clock)
    clock.now_s += 1000
    assert progress.stalled_s() == 0


def test_plays_that_are_not_committed_are_a_stall_from_their_arrival(clock: Clock) -> None:
    progress = Progress(clock)
    progress.work_arrived()
    clock.now_s += 30
    progress.work_arrived()
    assert progress.stalled_s() == 30


def test_every_commit_is_progress_even_when_more_is_waiting(clock: Clock) -> None:
    progress = Progress(clock)
    progress.work_arrived()
    clock.now_s += 30
    progress.work_done(idle=False)
    clock.now_s += 2
    assert progress.stalled_s() == 2
    progress.work_done(idle=True)
    assert progress.stalled_s() == 0


def test_a_consumer_that_fetches_nothing_of_what_there_is_is_a_stall(clock: Clock) -> None:
    progress = Progress(clock)
    progress.saw_lag(behind=True)
    clock.now_s += 10
    progress.saw_lag(behind=True)
    assert progress.stalled_s() == 10
    progress.saw_lag(behind=False)
    assert progress.stalled_s() == 0
    progress.saw_lag(behind=True)
    clock.now_s += 5
    progress.work_arrived()
    assert progress.stalled_s() == 0, "plays arrived after all"
