"""Ranking metrics, and their uncertainty as bootstrap intervals over members.

Rank 1 is the best item; ``inf`` is a miss (an item never seen in training, or filtered out). Items with equal scores
share the middle of their ranks, so that a ranker with few distinct scores has neither an advantage nor a disadvantage.

Shapes: N test plays, U members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTOFF = 10
#: Of the hit rate and of NDCG.
CUTOFFS = (5, 10, 20)
_MAX_DRAWS = 1 << 22  # 32 MiB of counts at once


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over test plays: hit rate and NDCG in the first ten, and mean reciprocal rank over the whole catalogue."""

    hr_at_10: float
    ndcg_at_10: float
    mrr: float
    num_plays: int


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % bootstrap interval over members."""

    estimate: float
    low: float
    high: float


def gains(ranks: NDArray[np.float64], cutoff: int = CUTOFF) -> NDArray[np.float64]:
    """NDCG of each play. With one relevant item it is 1 / log2(1 + rank) within the first ``cutoff``, else 0. Shape:
    f64[N].
    """
    return np.where(ranks <= cutoff, 1.0 / np.log2(1.0 + ranks), 0.0)


def rank_metrics(ranks: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Every ranking metric of each play: ``hr@k`` and ``ndcg@k`` for k in :data:`CUTOFFS`, and ``mrr`` (1 / rank over the whole
    universe). Shapes: one f64[N] each.
    """
    found = {f"hr@{k}": (ranks <= k).astype(np.float64) for k in CUTOFFS}
    found |= {f"ndcg@{k}": gains(ranks, k) for k in CUTOFFS}
    return found | {"mrr": 1.0 / ranks}


def mean_of_seeds(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over seeds of each play's value, before members are resampled: several seeds are not several members.

    Shapes: one f64[N] per seed, on the same plays -> f64[N].
    """
    return np.mean(np.stack(values), axis=0)


def quality(ranks: NDArray[np.float64]) -> Quality:
    """Quality of a set of ranks; zeros if there are none."""
    if not len(ranks):
        return Quality(0.0, 0.0, 0.0, 0)
    return Quality(
        hr_at_10=float((ranks <= CUTOFF).mean()),
        ndcg_at_10=float(gains(ranks).mean()),
        mrr=float((1.0 / ranks).mean()),
        num_plays=len(ranks),
    )


def mean_accuracy(correct: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Accuracy of each head over the plays whose observed label is known. Heads without such plays are left out."""
    return {name: float(np.nanmean(hits)) for name, hits in correct.items() if not np.isnan(hits).all()}


def mean_interval(
    values: NDArray[np.float64], member: NDArray[np.int64], *, rounds: int = 2000, seed: int = 0
) -> Interval:
    """The mean over plays, with members resampled with replacement.

    Shapes: values f64[N], member i64[N] (any numbering).
    """
    sums, counts = _resampled_sums(member, [values, np.ones_like(values)], rounds, seed)
    return _interval(float(values.mean()), sums / counts)


def lift_interval(
    values: NDArray[np.float64],
    reference: NDArray[np.float64],
    member: NDArray[np.int64],
    *,
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """How far the mean of ``values`` is above that of ``reference``, as a ratio (0.1 means 10 %); both use the same
    resampled members.

    Shapes: f64[N], f64[N], i64[N]. If the reference is 0 the lift is inf, or 0 if both are 0.
    """
    ours, theirs = _resampled_sums(member, [values, reference], rounds, seed)
    return _interval(float(_lift(values.sum(), reference.sum())), _lift(ours, theirs))


def p_value(
    values: NDArray[np.float64],
    reference: NDArray[np.float64],
    member: NDArray[np.int64],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> float:
    """How likely a difference of the means at least this large is where there is none: two-sided, by the same resampled
    members for both. It is never below 1 / rounds.

    Shapes: f64[N], f64[N], i64[N].
    """
    ours, theirs = _resampled_sums(member, [values, reference], rounds, seed)
    below, above = float((ours <= theirs).mean()), float((ours >= theirs).mean())
    return min(1.0, 2.0 * max(min(below, above), 0.5 / rounds))


def _lift(ours: NDArray[np.float64] | np.float64, theirs: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(np.divide(ours, theirs)) - 1.0
    return np.where(np.isnan(ratio), 0.0, ratio)


def _resampled_sums(
    member: NDArray[np.int64], values: Sequence[NDArray[np.float64]], rounds: int, seed: int
) -> list[NDArray[np.float64]]:
    """Sums of each of ``values`` over plays, with members drawn with replacement. Shapes: one f64[rounds] each.

    Cost: draws are made in blocks, so memory does not grow with members times rounds.
    """
    members, which = np.unique(member, return_inverse=True)
    num = len(members)
    by_member = np.stack([np.bincount(which, column, num) for column in values], axis=1)
    random, share = np.random.default_rng(seed), np.full(num, 1.0 / num)
    block = max(1, _MAX_DRAWS // num)
    sums = [
        random.multinomial(num, share, size=min(block, rounds - begin)) @ by_member for begin in range(0, rounds, block)
    ]
    return list(np.concatenate(sums).T)


def _interval(estimate: float, rounds: NDArray[np.float64]) -> Interval:
    """The bounds are two of the drawn values, without interpolation, because one of them may be inf."""
    return Interval(
        estimate, float(np.quantile(rounds, 0.025, method="lower")), float(np.quantile(rounds, 0.975, method="higher"))
    )
