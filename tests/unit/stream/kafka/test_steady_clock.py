"""The steady clock: jumps are ignored, drift is followed, a lasting change is accepted."""

from __future__ import annotations

import pytest

from stream.kafka.steady_clock import BELIEVED_AFTER_S, STEP_S, SteadyClock


class Clocks:
    """A monotonic clock and a system clock that is ``ahead_s`` of it."""

    def __init__(self) -> None:
        self.monotonic_s, self.ahead_s = 50.0, 1_700_000_000.0

    def steady(self) -> SteadyClock:
        return SteadyClock(lambda: self.monotonic_s + self.ahead_s, lambda: self.monotonic_s)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 2 * STEP_S])
def test_a_jump_and_its_way_back_are_not_seen(jump_s: float) -> None:
    clocks = Clocks()
    now = clocks.steady()
    clocks.ahead_s += jump_s
    for _ in range(10):
        clocks.monotonic_s += BELIEVED_AFTER_S / 20
        assert now() == clocks.monotonic_s + 1_700_000_000.0
    clocks.ahead_s -= jump_s
    assert now() == clocks.monotonic_s + 1_700_000_000.0


def test_a_jump_that_stays_is_the_time() -> None:
    clocks = Clocks()
    now = clocks.steady()
    clocks.ahead_s -= 3600.0
    now()
    clocks.monotonic_s += BELIEVED_AFTER_S
    assert now() == clocks.monotonic_s + clocks.ahead_s


def test_two_jumps_apart_are_not_one_that_stays() -> None:
    clocks = Clocks()
    now = clocks.steady()
    for _ in range(3):
        clocks.ahead_s += 3600.0
        now()
        clocks.monotonic_s += BELIEVED_AFTER_S / 2
        clocks.ahead_s -= 3600.0
        now()
    assert now() == clocks.monotonic_s + 1_700_000_000.0


def test_drift_is_followed() -> None:
    clocks = Clocks()
    now = clocks.steady()
    for _ in range(1000):
        clocks.monotonic_s += 1.0
        clocks.ahead_s += 0.01
        assert now() == clocks.monotonic_s + clocks.ahead_s
