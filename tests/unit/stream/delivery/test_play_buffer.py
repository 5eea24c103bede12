"""Micro-batches: full or due, in order, and divided among partitions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.delivery.play_buffer import MIN_TURN, PlayBuffer


@dataclass(frozen=True)
class Play:
    partition: int
    offset: int


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _plays(partition: int, num: int, first: int = 0) -> list[Play]:
    return [Play(partition, offset) for offset in range(first, first + num)]


def test_a_full_batch_is_due_at_once_and_a_partial_one_at_the_deadline() -> None:
    async def scenario() -> None:
        buffer = PlayBuffer(max_batch=4, deadline_s=0.03, clock=asyncio.get_running_loop().time)
        buffer.add(0, _plays(0, 5))
        async with asyncio.timeout(0.02):
            await buffer.wait_until_due()
        assert len(buffer.take()[0]) == 4
        before_s = asyncio.get_running_loop().time()
        await buffer.wait_until_due()
        assert asyncio.get_running_loop().time() - before_s >= 0.025
        assert buffer.take() == {0: _plays(0, 1, 4)}

    asyncio.run(scenario())


def test_what_a_full_batch_leaves_is_due_when_its_own_deadline_is_over() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        buffer = PlayBuffer(max_batch=4, deadline_s=10.0, clock=clock)
        buffer.add(0, _plays(0, 5))
        clock.now_s = 9.0
        assert len(buffer.take()[0]) == 4
        clock.now_s = 10.0
        waiting = asyncio.ensure_future(buffer.wait_until_due())
        for _ in range(3):
            await asyncio.sleep(0)
        assert waiting.done(), "it came 10 s ago"

    asyncio.run(scenario())


def test_a_partition_with_a_backlog_does_not_starve_the_others() -> None:
    async def scenario() -> None:
        buffer = PlayBuffer(max_batch=8, deadline_s=1, clock=FakeClock())
        buffer.add(0, _plays(0, 100))
        buffer.add(1, _plays(1, 2))
        batch = buffer.take()
        assert batch[1] == _plays(1, 2)
        assert batch[0] == _plays(0, 6)

    asyncio.run(scenario())


def test_partitions_with_a_backlog_take_turns_of_many_plays() -> None:
    """A micro-batch holds few partitions, and none waits longer than the turns of all others take."""
    buffer = PlayBuffer(max_batch=4 * MIN_TURN, deadline_s=1, clock=FakeClock())
    for partition in range(8):
        buffer.add(partition, _plays(partition, 1_000))
    batches = [buffer.take() for _ in range(4)]
    assert [sorted(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(len(plays) == MIN_TURN for batch in batches for plays in batch.values())


def test_a_partition_with_few_plays_does_not_wait_for_its_turn() -> None:
    buffer = PlayBuffer(max_batch=2 * MIN_TURN, deadline_s=1, clock=FakeClock())
    for partition in range(8):
        buffer.add(partition, _plays(partition, 1_000))
    buffer.take()
    buffer.add(8, _plays(8, 3))
    batch = buffer.take()
    assert batch[8] == _plays(8, 3)
    assert len(batch[2]) == MIN_TURN


@pytest.mark.parametrize(("num_partitions", "max_batch"), [(300, 256), (32, 16), (MIN_TURN + 1, MIN_TURN)])
def test_no_partition_waits_long_where_there_are_more_than_a_batch_holds_plays(
    num_partitions: int, max_batch: int
) -> None:
    buffer = PlayBuffer(max_batch=max_batch, deadline_s=1, clock=FakeClock())
    for partition in range(num_partitions):
        buffer.add(partition, _plays(partition, 1_000))
    buffer.add(num_partitions, _plays(num_partitions, 1))
    num_batches = -(-(num_partitions + 1) // max_batch)
    assert any(num_partitions in buffer.take() for _ in range(num_batches))


@given(st.lists(st.integers(0, 40), min_size=12, max_size=12), st.integers(0, 11))
def test_a_partition_with_a_backlog_has_its_turn_whatever_comes_of_others(coming: list[int], busy: int) -> None:
    """Others always get a few plays more, which come before it."""
    buffer = PlayBuffer(max_batch=256, deadline_s=1, clock=FakeClock())
    num_added = [0] * 12

    def add(partition: int, num: int) -> None:
        buffer.add(partition, _plays(partition, num, num_added[partition]))
        num_added[partition] += num

    add(busy, 3_000)
    served = 0
    for _ in range(24):
        for partition, num in enumerate(coming):
            add(partition, num)
        served += len(buffer.take().get(busy, []))
    assert served >= 24 * 256 // 12 // 2


def test_nothing_is_due_after_the_waiting_plays_were_dropped() -> None:
    async def scenario() -> None:
        buffer = PlayBuffer(max_batch=4, deadline_s=0.01, clock=asyncio.get_running_loop().time)
        buffer.add(0, _plays(0, 9))
        assert buffer.drop(0) == 9
        assert buffer.num_plays == 0
        waiting = asyncio.ensure_future(buffer.wait_until_due())
        await asyncio.sleep(0.03)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(scenario())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), max_size=20), st.integers(1, 16))
def test_every_play_comes_out_once_and_in_order(added: list[tuple[int, int]], max_batch: int) -> None:
    async def scenario() -> None:
        buffer = PlayBuffer(max_batch=max_batch, deadline_s=1, clock=FakeClock())
        given_plays: dict[int, list[Play]] = {}
        taken: dict[int, list[Play]] = {}
        for partition, num in added:
            plays = _plays(partition, num, len(given_plays.get(partition, [])))
            given_plays.setdefault(partition, []).extend(plays)
            buffer.add(partition, plays)
        while buffer.num_plays:
            batch = buffer.take()
            assert 0 < sum(map(len, batch.values())) <= max_batch
            for partition, plays in batch.items():
                taken.setdefault(partition, []).extend(plays)
        assert taken == given_plays

    asyncio.run(scenario())
