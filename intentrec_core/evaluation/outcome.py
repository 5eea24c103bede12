"""All figures of one ranker on one task, play by play, so that seeds are averaged and members resampled afterwards.

Shapes: N targets, V item rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.evaluation.lists import coverage, diversity, popularity_of
from intentrec_core.evaluation.metrics import CUTOFF, Interval, gains, mean_interval, rank_metrics
from intentrec_core.evaluation.rankers import Ranked
from intentrec_core.evaluation.task import Task

COVERAGE = f"coverage@{CUTOFF}"
DIVERSITY = f"diversity@{CUTOFF}"
POPULARITY = f"popularity@{CUTOFF}"


def play_metrics(ranked: Ranked, task: Task, attributes: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Every metric that is a mean over plays: f64[N] each, NaN where it does not apply to a play.

    - ``hr@k``, ``ndcg@k``, ``mrr`` of all plays; NDCG@10 of known and of new members, HR@10 and NDCG@10 of new items.
    - ``diversity@10``: see :func:`~intentrec_core.evaluation.lists.diversity`; left out without ``attributes`` f32[V, D].
    - ``popularity@10``: how popular the listed items are beside those that were played: 1 is no bias, 2 is twice as popular.
    """
    found = rank_metrics(ranked.ranks)
    new_member, new_item = task.is_new_member(), task.is_new_item()
    gain = gains(ranked.ranks)
    found["ndcg@10, known members"] = np.where(new_member, np.nan, gain)
    found["ndcg@10, new members"] = np.where(new_member, gain, np.nan)
    found["hr@10, new items"] = np.where(new_item, (ranked.ranks <= CUTOFF).astype(np.float64), np.nan)
    found["ndcg@10, new items"] = np.where(new_item, gain, np.nan)
    listed = ranked.listed[:, :CUTOFF]
    if attributes.shape[1]:
        found[DIVERSITY] = diversity(listed, attributes)
    learned = task.learnable & (task.data.place < int(task.learned.min()))
    counts = np.bincount(task.data.row[learned], minlength=len(task.data.universe)).astype(np.float64)
    counts[0] = 0.0
    found[POPULARITY] = popularity_of(listed, counts) / max(float(counts[task.targets.row].mean()), 1e-12)
    return found


def list_coverage(ranked: Ranked, task: Task) -> float:
    """Share of the universe that stands in at least one list of ten."""
    return coverage(ranked.listed[:, :CUTOFF], task.data.universe)


def interval_of(values: NDArray[np.float64], member: NDArray[np.int64], *, seed: int = 0) -> Interval | None:
    """The mean of one metric over the plays that it applies to, with members resampled; None where it applies to none."""
    known = ~np.isnan(values)
    return mean_interval(values[known], member[known], seed=seed) if known.any() else None
