"""Ranks to figures, and how sure they are: bootstrap intervals over members.

A rank is 1 for the best item; ``inf`` is a miss (never seen in training, or filtered). Items with equal scores share the middle
of their ranks, so that a reference with few distinct scores is neither favoured nor punished.

Shapes: N test plays, U members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTOFF = 10


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over test plays: hit rate and NDCG in the first ten, mean reciprocal rank over the whole catalogue."""

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


def gains(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """NDCG@10 of each play: one relevant item, so 1 / log2(1 + rank) within the first ten. Shape: f64[N]."""
    return np.where(ranks <= CUTOFF, 1.0 / np.log2(1.0 + ranks), 0.0)


def quality(ranks: NDArray[np.float64]) -> Quality:
    """Figures of a set of ranks; zeros for none."""
    if not len(ranks):
        return Quality(0.0, 0.0, 0.0, 0)
    return Quality(
        hr_at_10=float((ranks <= CUTOFF).mean()),
        ndcg_at_10=float(gains(ranks).mean()),
        mrr=float((1.0 / ranks).mean()),
        num_plays=len(ranks),
    )


def mean_accuracy(correct: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Accuracy of each head over the plays whose truth is known; heads with none are left out."""
    return {name: float(np.nanmean(hits)) for name, hits in correct.items() if not np.isnan(hits).all()}


def mean_interval(
    values: NDArray[np.float64], member: NDArray[np.int64], *, rounds: int = 2000, seed: int = 0
) -> Interval:
    """Mean over plays, members resampled with replacement.

    Shapes: values f64[N], member i64[N] (any numbering).
    """
    weights_RU, which = _resampled(member, rounds, seed)
    num = weights_RU.shape[1]
    sums, counts = np.bincount(which, values, num), np.bincount(which, minlength=num)
    return _interval(float(values.mean()), (weights_RU @ sums) / (weights_RU @ counts))


def lift_interval(
    values: NDArray[np.float64],
    reference: NDArray[np.float64],
    member: NDArray[np.int64],
    *,
    rounds: int = 2000,
    seed: int = 0,
) -> Interval:
    """How far the mean of ``values`` is above that of ``reference``, as a ratio (0.1 is 10 % above); resampled in pairs.

    Shapes: f64[N], f64[N], i64[N]. A reference of 0 gives inf.
    """
    weights_RU, which = _resampled(member, rounds, seed)
    num = weights_RU.shape[1]
    ours, theirs = np.bincount(which, values, num), np.bincount(which, reference, num)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (weights_RU @ ours) / (weights_RU @ theirs) - 1.0
        return _interval(float(np.divide(values.sum(), reference.sum()) - 1.0), ratios)


def _resampled(member: NDArray[np.int64], rounds: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How often each round drew each member, and each play's member numbered from 0."""
    members, which = np.unique(member, return_inverse=True)
    num = len(members)
    drawn = np.random.default_rng(seed).multinomial(num, np.full(num, 1.0 / num), size=rounds)
    return drawn.astype(np.float64), which


def _interval(estimate: float, rounds: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(rounds[~np.isnan(rounds)], [0.025, 0.975]) if len(rounds) else (estimate, estimate)
    return Interval(estimate, float(low), float(high))
