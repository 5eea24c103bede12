"""What is fetched and not committed is bounded in plays and in bytes, over all partitions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stream.delivery.in_flight import InFlight
from stream.wire.records import Fetched


def _fetched(start: int, sizes: list[int]) -> Fetched:
    records: list[Any] = [SimpleNamespace(offset=start + i, value=b"x" * size) for i, size in enumerate(sizes)]
    return Fetched(start, records, start + len(sizes))


def test_few_large_plays_are_too_many() -> None:
    outstanding, one, other = InFlight(max_plays=100, max_bytes=1000), *(object() for _ in range(2))
    outstanding.begin(one)
    outstanding.begin(other)
    outstanding.fetched(one, _fetched(0, [400, 100]))
    assert outstanding.has_capacity
    outstanding.fetched(other, _fetched(7, [600]))
    assert not outstanding.has_capacity
    outstanding.committed(one, 1, 1)
    assert not outstanding.has_capacity, "a part of a fetch frees nothing yet"
    outstanding.committed(one, 1, 2)
    assert outstanding.has_capacity
    assert outstanding.holds(other)
    assert not outstanding.holds(one)
    assert outstanding.end(other)
    assert not outstanding.holds(other)
    outstanding.committed(other, 1, 8)


def test_many_small_plays_are_too_many() -> None:
    outstanding, life = InFlight(max_plays=3, max_bytes=1000), object()
    outstanding.begin(life)
    outstanding.fetched(life, _fetched(0, [1, 1, 1]))
    assert not outstanding.has_capacity
    outstanding.committed(life, 2, 2)
    assert outstanding.has_capacity


def test_a_fetch_that_ends_behind_the_end_of_a_transaction_frees_its_bytes_with_its_last_play() -> None:
    outstanding, life = InFlight(max_plays=100, max_bytes=1000), object()
    outstanding.begin(life)
    plays = _fetched(0, [600, 600])
    outstanding.fetched(life, Fetched(plays.start, plays.records, plays.end + 1))
    outstanding.fetched(life, Fetched(plays.end + 1, [], plays.end + 2))
    assert not outstanding.has_capacity
    outstanding.committed(life, 2, 2)
    assert outstanding.has_capacity
