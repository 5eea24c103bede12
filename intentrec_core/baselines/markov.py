"""A reference ranker: a Markov chain over items, which ranks what usually follows the last plays.

    score(j) = Σ_d decay^d · count(play d back → j) / (count(play d back) + shrinkage) + backoff · popularity(j)

The shrinkage keeps a pair that was seen once from outranking a frequent one. With ``spread`` above 1, a play also counts, with
decay, as a successor of earlier plays than the last. This is stronger on data in which neighbouring plays have no strict order.

The transitions are kept in the order in which they were observed, so one object answers as of any moment: at the moment of
training (a frozen chain), at the last refresh, or at the play itself (an online chain).

Shapes: P plays of all members, V item rows (row 0: unknown item).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.baselines.popularity import DAY_S, WEEK_S


@dataclass(frozen=True, slots=True)
class MarkovSettings:
    """Settings of a chain. ``lags``: how many of the last plays it looks at; 1 makes it first-order.

    ``backoff_window_s``: over how long popularity is counted. The defaults are the best of a grid on the last tenth of
    MovieLens-100K's training plays.

    Raises: ValueError with the values when one is outside its range.
    """

    lags: int = 5
    decay: float = 0.85
    shrinkage: float = 30.0
    backoff: float = 0.1
    spread: int = 1
    backoff_window_s: float = WEEK_S

    def __post_init__(self) -> None:
        if self.lags < 1 or self.spread < 1 or not 0 < self.decay <= 1:
            raise ValueError(
                f"lags {self.lags}, spread {self.spread}, decay {self.decay}; "
                "allowed: at least 1, at least 1, above 0 and at most 1"
            )
        if self.shrinkage < 0 or self.backoff < 0:
            raise ValueError(f"shrinkage {self.shrinkage}, backoff {self.backoff}; allowed: at least 0")

    def __str__(self) -> str:
        window = "all time" if math.isinf(self.backoff_window_s) else f"{self.backoff_window_s / DAY_S:g} days"
        return (
            f"lags {self.lags}, decay {self.decay:g}, shrinkage {self.shrinkage:g}, spread {self.spread}, "
            f"back-off {self.backoff:g} by popularity of {window}"
        )


class Transitions:
    """The pairs of successive plays of each member, by the earlier item, in the order in which they were observed.

    ``row`` i64[P] are the plays of one member after another, oldest first; ``member`` i64[P] says whose; ``place`` i64[P] is each
    play's place in time among all of them. ``learnable`` bool[P]: plays that may be learned. Pairs with row 0 do not count.

    Cost: memory O(P · spread); O(P · spread · log) to build.
    """

    def __init__(
        self,
        row: NDArray[np.int64],
        member: NDArray[np.int64],
        place: NDArray[np.int64],
        learnable: NDArray[np.bool_],
        num_rows: int,
        *,
        spread: int = 1,
        decay: float = 1.0,
    ) -> None:
        usable = learnable & (row > 0)
        found: list[tuple[NDArray[np.int64], ...]] = []
        weights: list[NDArray[np.float64]] = []
        for gap in range(1, min(spread, len(row) - 1) + 1):
            pair = (member[:-gap] == member[gap:]) & usable[:-gap] & usable[gap:]
            found.append((row[:-gap][pair], row[gap:][pair], place[gap:][pair]))
            weights.append(np.full(int(pair.sum()), decay ** (gap - 1)))
        none = np.zeros(0, dtype=np.int64)
        before, after, seen = (np.concatenate(x) for x in zip(*found, strict=True)) if found else (none, none, none)
        order = np.lexsort((seen, before))
        self._starts = np.searchsorted(before[order], np.arange(num_rows + 1))
        self._after, self._seen = after[order], seen[order]
        self._weight = (np.concatenate(weights) if weights else np.zeros(0))[order]
        self._total = np.concatenate([[0.0], np.cumsum(self._weight)])

    def followers(self, row: int, num_plays: int) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """What followed an item among the first ``num_plays`` plays in time: the items (with repeats), the weight of each, and
        the sum of the weights.
        """
        low, high = int(self._starts[row]), int(self._starts[row + 1])
        high = low + int(np.searchsorted(self._seen[low:high], num_plays))
        return self._after[low:high], self._weight[low:high], float(self._total[high] - self._total[low])


def add_transitions(
    scores: NDArray[np.float32],
    last_rows: NDArray[np.int64],
    transitions: Transitions,
    settings: MarkovSettings,
    num_plays: int,
) -> None:
    """Adds the scores of what follows ``last_rows`` (oldest first, any number), learned from the first ``num_plays`` plays.

    Shapes: scores f32[V], changed in place; last_rows i64[any].
    """
    for back, row in _newest_first(last_rows, settings.lags):
        after, weight, total = transitions.followers(row, num_plays)
        if len(after):
            np.add.at(
                scores, after, (weight * (settings.decay**back / (total + settings.shrinkage))).astype(np.float32)
            )


def add_backoff(scores: NDArray[np.float32], popularity: NDArray[np.float32], backoff: float) -> None:
    """Adds ``backoff`` times each item's share of the plays counted in ``popularity``. Shapes: f32[V], in place, and f32[V]."""
    scores += popularity * np.float32(backoff / max(float(popularity.sum()), 1.0))


def _newest_first(last_rows: NDArray[np.int64], lags: int) -> Iterator[tuple[int, int]]:
    return enumerate(last_rows[: -lags - 1 : -1].tolist())
