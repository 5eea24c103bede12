"""Gathering follows the rate of plays, and does not go back and forth near a bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stream.delivery.gathering import WINDOW_S, Gathering

ABOVE_PER_S = 800.0
FETCH_S = 0.02


class Plays:
    """Fetched at a rate, every 20 ms, by a consumer whose clock is here."""

    def __init__(self, above_per_s: float = ABOVE_PER_S) -> None:
        self.now_s = 100.0
        self.gathering = Gathering(above_per_s, lambda: self.now_s)

    def come(self, per_s: float, seconds: float, num_partitions: int = 8) -> list[bool]:
        """Whether it gathers after each fetch."""
        return [self.fetch(round(per_s * FETCH_S), num_partitions) for _ in range(round(seconds / FETCH_S))]

    def fetch(self, num_plays: int, num_partitions: int) -> bool:
        self.now_s += FETCH_S
        return self.gathering.fetched(num_plays, num_partitions)


def test_few_plays_are_not_gathered() -> None:
    assert not any(Plays().come(750, 60))


def test_gathering_begins_within_the_window_that_has_many_plays() -> None:
    plays = Plays()
    plays.come(200, 10)
    assert plays.come(2000, WINDOW_S)[-1]
    backlog = Plays()
    assert backlog.gathering.fetched(2048, 1), "no window has to pass"


def test_gathering_ends_once_a_whole_window_had_few_plays() -> None:
    plays = Plays()
    plays.come(2000, 2)
    states = plays.come(200, 2 * WINDOW_S)
    assert states[0]
    assert not states[-1]


def test_it_ends_without_plays_too() -> None:
    plays = Plays()
    plays.come(2000, 2)
    plays.now_s += 60
    assert not plays.gathering.fetched(0, 1)


@pytest.mark.parametrize("is_active", [False, True])
def test_between_the_bounds_it_stays_as_it_is(is_active: bool) -> None:
    plays = Plays()
    plays.come(2000 if is_active else 200, 2)
    assert set(plays.come(700, 60)) == {is_active}


def test_with_many_partitions_fewer_plays_are_many() -> None:
    assert not any(Plays().come(200, 10, num_partitions=16))
    assert Plays().come(200, 8 * WINDOW_S, num_partitions=64)[-1]
    assert not any(Plays().come(50, 60, num_partitions=64))
    assert not any(Plays().come(700, 10, num_partitions=1))


@pytest.mark.parametrize("num_partitions", [8, 64])
@pytest.mark.parametrize("ratio", [1.0, 0.75])
def test_plays_that_come_by_chance_near_a_bound_do_not_make_it_go_back_and_forth(
    num_partitions: int, ratio: float
) -> None:
    bound_per_s = 300 * ratio / (num_partitions / 8)
    numbers = np.random.default_rng(0).poisson(bound_per_s * FETCH_S, 30_000)
    plays = Plays(300.0)
    states = [plays.fetch(number, num_partitions) for number in numbers.tolist()]
    changes = sum(one != other for one, other in itertools.pairwise(states))
    assert changes <= 6, "in ten minutes"


def test_with_a_bound_of_0_it_always_gathers() -> None:
    assert all(Plays(0).come(0, 5))
