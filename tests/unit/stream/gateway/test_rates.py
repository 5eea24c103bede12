"""Requests of a client: so many a second, twice as many at once, and the time to wait is said."""

from __future__ import annotations

import pytest

from stream.gateway.problems import Problem
from stream.gateway.rates import RequestRates


def test_the_average_holds_and_a_burst_of_two_seconds_passes() -> None:
    now_s = [100.0]
    rates = RequestRates(5, clock=lambda: now_s[0])
    refusals: list[tuple[int, str]] = []

    def passed(num: int) -> int:
        count = 0
        for _ in range(num):
            try:
                rates.check("a")
            except Problem as problem:
                refusals.append((problem.status, problem.headers["Retry-After"]))
            else:
                count += 1
        return count

    assert passed(50) == 10
    now_s[0] += 1
    assert passed(50) == 5
    rates.check("b")
    now_s[0] += 1000
    assert passed(50) == 10
    assert set(refusals) == {(429, "1")}


def test_a_rate_below_one_a_second_lets_one_through() -> None:
    rates = RequestRates(0.1, clock=lambda: 0.0)
    rates.check("a")
    with pytest.raises(Problem) as raised:
        rates.check("a")
    assert raised.value.headers["Retry-After"] == "10"


def test_no_rate_is_no_limit() -> None:
    rates = RequestRates(0, clock=lambda: 0.0)
    for _ in range(1000):
        rates.check("a")
