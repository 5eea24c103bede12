"""What is measured: every row of the table, and how its settings are chosen.

A row chooses on the validation task and is asked once on the test task. Each row says which parts of the code it depends on, so
that a change of the model runs no baseline again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from intentrec_core.baselines.popularity import DAY_S
from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, Ranked, rank
from intentrec_core.evaluation.task import Task
from intentrec_core.evaluation.tuning import Tuned, first_order, last_plays
from tests.bench.quality.data_sets import Loaded, Measured

#: Folders and files whose code decides what a row without weights gives.
COUNTING_CODE = (
    "intentrec_core/baselines/counts.py",
    "intentrec_core/baselines/markov.py",
    "intentrec_core/baselines/popularity.py",
    "intentrec_core/evaluation/heads.py",
    "intentrec_core/evaluation/metrics.py",
    "intentrec_core/evaluation/protocols.py",
    "intentrec_core/evaluation/rankers.py",
    "intentrec_core/evaluation/targets.py",
    "intentrec_core/evaluation/task.py",
    "intentrec_core/evaluation/tuning.py",
    "intentrec_core/domain",
    "intentrec_core/history",
    "intentrec_core/plays/members.py",
    "intentrec_core/plays/windows.py",
    "tests/bench/quality/rows.py",
)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one run gave on the test task: ranks and lists, what the heads said, and the choice that was made, in words."""

    ranked: Ranked
    note: str
    heads: dict[str, HeadOutcomes]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. ``configuration``: everything that decides what it gives, besides data, protocol, code and seed.

    ``is_trained``: it depends on torch's version and number of threads, and it does not see the time of its target, so one run
    answers both where that time is known and where it is not.
    """

    name: str
    configuration: str
    answer: Callable[[Measured, Loaded, Protocol, int], Answers]
    code: tuple[str, ...] = COUNTING_CODE
    seeds: tuple[int, ...] = (0,)
    is_ours: bool = False
    is_trained: bool = False
    protocols: Callable[[str], bool] = lambda _: True
    data_sets: tuple[str, ...] | None = None

    def wants(self, data_set: str) -> bool:
        """Whether the row is measured on this data set: on all, where none is named."""
        return self.data_sets is None or data_set in self.data_sets


def popularity_rows() -> list[Row]:
    """The most played items of the last day, week and month, and of all time."""
    windows = (("1 day", DAY_S), ("7 days", 7 * DAY_S), ("30 days", 30 * DAY_S), ("all time", math.inf))
    return [
        Row(f"popular, {name}", f"window_s={window_s}", _alone(PopularityRanker(window_s)))
        for name, window_s in windows
    ]


def markov_rows() -> list[Row]:
    """Markov chains, first-order and over the last 5 plays; frozen between refreshes, and online."""
    rows = []
    for online in (False, True):
        kind = "online" if online else "frozen"
        for name, choose in (("first order", first_order), ("last 5", last_plays)):
            wants = (lambda protocol: protocol != "leave-one-out") if online else (lambda _: True)
            answer = _tuned(lambda task, choose=choose, online=online: choose(task, online=online))
            rows.append(Row(f"Markov, {name}, {kind}", f"{name}, online={online}", answer, protocols=wants))
    return rows


def _alone(ranker: PopularityRanker) -> Callable[[Measured, Loaded, Protocol, int], Answers]:
    return lambda _measured, _loaded, protocol, _seed: Answers(rank(ranker, protocol.test), "", {})


def _tuned(choose: Callable[[Task], Tuned[MarkovRanker]]) -> Callable[[Measured, Loaded, Protocol, int], Answers]:
    def answer(_measured: Measured, _loaded: Loaded, protocol: Protocol, _seed: int) -> Answers:
        tuned = choose(protocol.validation)
        return Answers(rank(tuned.best, protocol.test), tuned.line(), {})

    return answer
