"""Chooses a setting on a validation task, and says how much the choice matters: the mean and the spread of the whole grid.

The best of a large grid is partly luck. Whoever reads a table sees from the mean beside the best how much of a lead is tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

import numpy as np

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.baselines.popularity import WEEK_S
from intentrec_core.evaluation.metrics import gains
from intentrec_core.evaluation.rankers import MarkovRanker, Ranker, ranks_alone
from intentrec_core.evaluation.task import Task

AnyRanker = TypeVar("AnyRanker", bound=Ranker)


@dataclass(frozen=True, slots=True)
class Tuned(Generic[AnyRanker]):
    """The best of a grid by NDCG@10 on the validation task, with that value, and the grid's mean and standard deviation."""

    best: AnyRanker
    value: float
    grid_mean: float
    grid_spread: float
    num_points: int

    def line(self) -> str:
        """The choice in words."""
        return (
            f"NDCG@10 on validation {self.value:.4f}, best of {self.num_points} (mean {self.grid_mean:.4f}, "
            f"spread {self.grid_spread:.4f}): {self.best}"
        )


def tune(grid: Sequence[AnyRanker], validation: Task) -> Tuned[AnyRanker]:
    """Asks every ranker of the grid on the validation task. Of equally good ones, the first is taken.

    Raises: ValueError for an empty grid.
    """
    if not grid:
        raise ValueError("the grid is empty: it needs at least one point")
    values = [float(gains(ranks_alone(ranker, validation)).mean()) for ranker in grid]
    best = int(np.argmax(values))
    return Tuned(grid[best], values[best], float(np.mean(values)), float(np.std(values)), len(grid))


def first_order_grid(*, online: bool, windows_s: Sequence[float] = (WEEK_S,)) -> list[MarkovRanker]:
    """First-order chains: shrinkage, back-off, and the window of its popularity."""
    return [
        MarkovRanker(MarkovSettings(1, 1.0, shrinkage, backoff, 1, window_s), online)
        for shrinkage, backoff, window_s in product((1.0, 10.0, 100.0), (0.01, 0.1, 1.0), windows_s)
    ]


def last_plays_grid(*, online: bool, lags: int = 5, windows_s: Sequence[float] = (WEEK_S,)) -> list[MarkovRanker]:
    """Chains over the last plays: decay, shrinkage, back-off, pairs of neighbours or of plays up to ``lags`` apart."""
    return [
        MarkovRanker(MarkovSettings(lags, decay, shrinkage, backoff, spread, window_s), online)
        for spread, decay, shrinkage, backoff, window_s in _points(lags, windows_s)
    ]


def _points(lags: int, windows_s: Sequence[float]) -> Iterator[tuple[int, float, float, float, float]]:
    return product((1, lags), (0.6, 0.85, 1.0), (3.0, 30.0, 300.0), (0.1, 1.0), windows_s)
