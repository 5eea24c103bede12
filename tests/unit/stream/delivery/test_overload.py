"""A worker coalesces from the bound down to half of it, and only while a full micro-batch waits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stream.delivery.overload import Overload
from stream.delivery.play_buffer import PlayBuffer


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        ([99, 100, 101], [False, False, True]),
        ([101, 99, 51, 50], [True, True, True, False]),
        ([101, 50, 99, 101], [True, False, False, True]),
    ],
)
def test_it_is_on_from_the_bound_until_half_of_it(lags: list[int], expected: list[bool]) -> None:
    overload, found = Overload(100, lambda: True), []
    for lag in lags:
        overload.saw_lag(lag)
        found.append(overload.is_on)
    assert found == expected


def test_a_bound_of_zero_is_never_exceeded() -> None:
    overload = Overload(0, lambda: True)
    overload.saw_lag(10**9)
    assert not overload.is_on


def test_in_overload_a_micro_batch_takes_all_waiting_plays() -> None:
    buffer = PlayBuffer(max_batch=4, deadline_s=0, clock=lambda: 0.0)
    for partition in (0, 1):
        buffer.add(partition, [SimpleNamespace(offset=offset) for offset in range(5)])
    assert sum(map(len, buffer.take().values())) == 4
    taken = buffer.take(everything=True)
    assert {p: [r.offset for r in records] for p, records in taken.items()} == {0: [4], 1: [0, 1, 2, 3, 4]}
    assert not buffer.num_plays
