"""Plays in flight are bounded in number and in bytes, over all partitions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stream.delivery.flow_control import InFlight
from stream.wire.records import Fetched


def _fetched(start: int, sizes: list[int]) -> Fetched:
    records: list[Any] = [SimpleNamespace(offset=start + i, value=b"x" * size) for i, size in enumerate(sizes)]
    return Fetched(start, records, start + len(sizes))


def test_few_large_plays_are_too_many() -> None:
    in_flight, one, other = InFlight(max_plays=100, max_bytes=1000), *(object() for _ in range(2))
    in_flight.begin(one)
    in_flight.begin(other)
    in_flight.fetched(one, _fetched(0, [400, 100]))
    assert in_flight.has_capacity
    in_flight.fetched(other, _fetched(7, [600]))
    assert not in_flight.has_capacity
    in_flight.committed(one, 1, 1)
    assert not in_flight.has_capacity, "a part of a fetch frees nothing yet"
    in_flight.committed(one, 1, 2)
    assert in_flight.has_capacity
    assert in_flight.holds(other)
    assert not in_flight.holds(one)
    assert in_flight.end(other)
    assert not in_flight.holds(other)
    in_flight.committed(other, 1, 8)


def test_many_small_plays_are_too_many() -> None:
    in_flight, task = InFlight(max_plays=3, max_bytes=1000), object()
    in_flight.begin(task)
    in_flight.fetched(task, _fetched(0, [1, 1, 1]))
    assert not in_flight.has_capacity
    in_flight.committed(task, 2, 2)
    assert in_flight.has_capacity


def test_a_fetch_that_ends_after_a_control_record_frees_its_bytes_with_its_last_play() -> None:
    in_flight, task = InFlight(max_plays=100, max_bytes=1000), object()
    in_flight.begin(task)
    plays = _fetched(0, [600, 600])
    in_flight.fetched(task, Fetched(plays.start, plays.records, plays.end + 1))
    in_flight.fetched(task, Fetched(plays.end + 1, [], plays.end + 2))
    assert not in_flight.has_capacity
    in_flight.committed(task, 2, 2)
    assert in_flight.has_capacity
