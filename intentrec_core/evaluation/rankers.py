"""Rankers: what scores every item at every target of a task. One function, :func:`rank`, turns scores into ranks and lists.

A reference sees what happened up to the moment of a target: popularity counts it, an online Markov chain learns it too. A frozen
chain and a model learn up to the last refresh, and see later plays of the member as history only.

Shapes: N targets, V item rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.baselines.counts import WindowCounts
from intentrec_core.baselines.markov import MarkovSettings, Transitions, add_backoff, add_transitions
from intentrec_core.evaluation.task import Task

#: Scores held at once: 16 MiB as float32, whatever the number of items.
MAX_REFERENCE_SCORES = 1 << 22
#: Length of the lists that coverage and diversity are measured on.
LIST_LENGTH = 20

ScoredTargets = tuple[NDArray[np.int64], Tensor]


class Ranker(Protocol):
    """Anything that scores all items at the targets of a task."""

    def scores(self, task: Task) -> Iterator[ScoredTargets]:
        """Some targets, and a score of every row for each: i64[n] and f32[n, V], until all targets had their turn. The scores
        may be overwritten by the caller.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """Results of one ranker: ranks f64[N] (inf: a miss), and the first items of each list, listed i64[N, 20] (0: none)."""

    ranks: NDArray[np.float64]
    listed: NDArray[np.int64]


def rank(ranker: Ranker, task: Task, *, list_length: int = LIST_LENGTH) -> Ranked:
    """Ranks every item for every target, by one rule for all rankers (:class:`~intentrec_core.evaluation.targets.Targets`)."""
    ranks = np.full(len(task), np.nan)
    listed = np.zeros((len(task), list_length), dtype=np.int64)
    for which, scores in ranker.scores(task):
        ranks[which], listed[which] = task.targets.ranked(which, scores, list_length)
    assert not np.isnan(ranks).any(), "every target was ranked"
    return Ranked(ranks, listed)


def ranks_alone(ranker: Ranker, task: Task) -> NDArray[np.float64]:
    """The ranks of :func:`rank`, without lists: faster, for grids."""
    ranks = np.full(len(task), np.nan)
    for which, scores in ranker.scores(task):
        ranks[which] = task.targets.ranks(which, scores)
    return ranks


@dataclass(frozen=True, slots=True)
class PopularityRanker:
    """The most played items of the last ``window_s`` seconds before each target; inf: of all time."""

    window_s: float

    def scores(self, task: Task) -> Iterator[ScoredTargets]:
        """See :class:`Ranker`."""
        counts = _Counts(task, self.window_s)
        for which in _chunks(counts.order, len(task.data.universe)):
            scores = np.stack([counts.at(i) for i in which.tolist()])
            yield which, torch.from_numpy(scores)


@dataclass(frozen=True, slots=True)
class MarkovRanker:
    """A Markov chain. ``online``: it has learned every play before the target; otherwise those up to the last refresh."""

    settings: MarkovSettings = field(default_factory=MarkovSettings)
    online: bool = False

    def __str__(self) -> str:
        return str(self.settings)

    def scores(self, task: Task) -> Iterator[ScoredTargets]:
        """See :class:`Ranker`."""
        data, settings, num_rows = task.data, self.settings, len(task.data.universe)
        members, play = data.members, task.targets.play
        transitions = Transitions(
            data.row,
            members.member,
            data.place,
            task.learnable,
            num_rows,
            spread=settings.spread,
            decay=settings.decay,
        )
        known = (task.countable if self.online else task.learned).tolist()
        first = np.maximum(members.bounds[members.member[play]], play - settings.lags)
        counts = _Counts(task, settings.backoff_window_s)
        for which in _chunks(counts.order, num_rows):
            scores = np.zeros((len(which), num_rows), dtype=np.float32)
            for own, i in zip(scores, which.tolist(), strict=True):
                add_backoff(own, counts.at(i), settings.backoff)
                add_transitions(own, data.row[first[i] : play[i]], transitions, settings, known[i])
            yield which, torch.from_numpy(scores)


class _Counts:
    """Counts of plays as of each target, asked in ``order`` i64[N]."""

    def __init__(self, task: Task, window_s: float) -> None:
        in_time = np.argsort(task.data.place)
        in_time = in_time[task.learnable[in_time] & (task.data.row[in_time] > 0)]
        known = task.countable if math.isinf(window_s) else task.live
        self._num_plays = np.searchsorted(task.data.place[in_time], known)
        self._now_s = task.now_s
        self._counts = WindowCounts(task.data.row[in_time], task.data.ts_s[in_time], len(task.data.universe), window_s)
        self.order = np.lexsort((task.now_s, self._num_plays))

    def at(self, target: int) -> NDArray[np.float32]:
        """The counts of one target. Shape: f32[V]."""
        return self._counts.at(int(self._num_plays[target]), float(self._now_s[target])).copy()


def _chunks(order: NDArray[np.int64], num_rows: int) -> Iterator[NDArray[np.int64]]:
    size = max(1, MAX_REFERENCE_SCORES // num_rows)
    return (order[low : low + size] for low in range(0, len(order), size))
