"""The watch on the log's end: a fetcher that stands still, a broker that does not answer, a partition nobody opens."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream.lag_watch import watch_lag


class Watched:
    """A worker with partitions 0 and 1 and their source, as the watch sees them; ``positions`` are (fetched, end)."""

    def __init__(self) -> None:
        self.assigned = frozenset({0, 1})
        self.lives = {partition: SimpleNamespace(committed_offset=100) for partition in (0, 1)}
        self.positions = {0: (100, 100), 1: (100, 100)}
        self.behind: list[bool] = []
        self.lags: list[int] = []
        self.seen: list[int] = []
        self.progress = SimpleNamespace(saw_lag=lambda *, behind: self.behind.append(behind))
        self.figures = self.overload = SimpleNamespace(lag=self.lags.append, saw_lag=self.seen.append)

    def fetchable(self) -> dict[int, Any]:
        return self.lives

    def unopened(self) -> set[int]:
        return set(self.assigned - self.lives.keys())

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        return {partition: self.positions[partition] for partition in partitions}

    async def looked(self, num_looks: int) -> None:
        watching = asyncio.ensure_future(watch_lag(self, self, 0.001))  # type: ignore[arg-type]
        while len(self.behind) < num_looks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_worker_at_the_end_of_the_log_is_not_behind(watched: Watched) -> None:
    asyncio.run(watched.looked(4))
    assert not any(watched.behind)
    assert set(watched.lags) == {0}


def test_a_fetcher_that_stands_still_is_behind(watched: Watched) -> None:
    watched.positions[1] = (100, 130)
    asyncio.run(watched.looked(4))
    assert watched.behind[:3] == [False, True, True], "the first look has nothing to compare with"
    assert set(watched.lags) == {30}


def test_a_partition_that_nobody_opens_is_behind_and_keeps_its_lag(watched: Watched) -> None:
    watched.positions[1] = (130, 130)

    async def scenario() -> None:
        watching = asyncio.ensure_future(watch_lag(watched, watched, 0.001))  # type: ignore[arg-type]
        while not watched.lags:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        del watched.lives[1]
        num_looks = len(watched.behind)
        while len(watched.behind) < num_looks + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert watched.behind[-1]
        assert watched.lags[-1] == 30
        watched.assigned = frozenset({0})
        num_looks = len(watched.behind)
        while len(watched.behind) < num_looks + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert not watched.behind[-1]
        assert watched.lags[-1] == 0
        watching.cancel()

    asyncio.run(scenario())
