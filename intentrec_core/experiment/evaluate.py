"""Asks every ranker, and makes figures of what they answered: the one harness behind ``intentrec eval``.

    data ─ protocol ─▶ validation task, test task ─ rankers ─▶ answers play by play ─▶ means, intervals, comparisons

Seeds are averaged for each play first; then members are resampled, the same ones for both rows of a comparison.

Shapes: N targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.evaluation.calibration import calibration_bins
from intentrec_core.evaluation.heads import HeadQuality, head_quality
from intentrec_core.evaluation.lists import attribute_table
from intentrec_core.evaluation.metrics import CUTOFF, lift_interval, mean_of_seeds, p_value
from intentrec_core.evaluation.outcome import COVERAGE, interval_of, list_coverage, play_metrics
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.results import (
    MAIN,
    Above,
    EpochPoint,
    Evaluation,
    Figure,
    HeadResult,
    RowResult,
    SeedRun,
    TaskFacts,
    finite,
)
from intentrec_core.evaluation.task import Task
from intentrec_core.experiment.compared_rankers import Answered, ComparedRanker
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.watch import Silent, Watch

#: What IntentRec is compared by with every other row; by that of new items too, where there are any.
COMPARED = (MAIN, f"hr@{CUTOFF}", "mrr")
NEW_ITEMS = f"hr@{CUTOFF}, new items"

PlayValues = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Experiment:
    """The results, and what the first row (IntentRec) answered with its first seed: the report looks into it."""

    evaluation: Evaluation
    ours: Answered


def evaluate(
    data: ExperimentData,
    protocol: Protocol,
    rankers: Sequence[ComparedRanker],
    *,
    seeds: Sequence[int] = (0,),
    chooses: bool = True,
    knows_time: bool = True,
    watch: Watch | None = None,
) -> Experiment:
    """Asks every ranker, the first of which is IntentRec, once for each seed where it has seeds.

    ``chooses``: whether the validation was used; ``knows_time``: what the protocol was made with. Both are only stated.

    Raises: ValueError without a ranker or a seed.
    """
    if not rankers or not seeds:
        raise ValueError("an evaluation needs a ranker and a seed: give at least one of each")
    watch = watch or Silent()
    attributes = attribute_table(data.table)
    given: list[tuple[ComparedRanker, dict[int, Answered], PlayValues]] = []
    for ranker in rankers:
        watch.step(f"asking {ranker.name}")
        of_seeds = {seed: ranker.answer(protocol, seed) for seed in (seeds if ranker.has_seeds else seeds[:1])}
        values = [play_metrics(found.answers.ranked, protocol.test, attributes) for found in of_seeds.values()]
        given.append((ranker, of_seeds, {name: mean_of_seeds([v[name] for v in values]) for name in values[0]}))
    watch.step("resampling members")
    ours = given[0][2]
    rows = tuple(
        _row(ranker, of_seeds, values, None if ranker is rankers[0] else ours, protocol.test, attributes)
        for ranker, of_seeds, values in given
    )
    result = Evaluation(
        data=data.facts(),
        protocol=protocol.name,
        validation=task_facts(protocol.validation) if chooses else None,
        test=task_facts(protocol.test),
        items_ranked=int(data.asked.universe.sum()),
        hides_played=protocol.test.targets.filter_watched,
        knows_time=knows_time,
        rows=rows,
    )
    return Experiment(result, given[0][1][seeds[0]])


def task_facts(task: Task) -> TaskFacts:
    """Which plays a task asks."""
    ts_ms = task.data.members.events["ts_ms"][task.targets.play]
    return TaskFacts(
        plays=len(task),
        members=len(np.unique(task.targets.member)),
        plays_of_new_members=int(task.is_new_member().sum()),
        plays_of_new_items=int(task.is_new_item().sum()),
        first_ms=int(ts_ms.min()),
        last_ms=int(ts_ms.max()),
    )


def _row(
    ranker: ComparedRanker,
    of_seeds: Mapping[int, Answered],
    values: PlayValues,
    ours: PlayValues | None,
    task: Task,
    attributes: NDArray[np.float32],
) -> RowResult:
    member = task.targets.member
    found = {name: interval_of(of_plays, member) for name, of_plays in values.items()}
    metrics = {name: Figure.of(interval) for name, interval in found.items() if interval is not None}
    covered = [list_coverage(answered.answers.ranked, task) for answered in of_seeds.values()]
    metrics[COVERAGE] = Figure(float(np.mean(covered)))
    choices = dict.fromkeys(answered.choice for answered in of_seeds.values())
    return RowResult(
        name=ranker.name,
        kind=ranker.kind,
        metrics=metrics,
        above={} if ours is None else dict(_above(ours, values, member)),
        choice="; ".join(filter(None, choices)),
        seeds=tuple(_seed_run(seed, answered, task, attributes) for seed, answered in of_seeds.items()),
        heads=_heads(list(of_seeds.values())),
    )


def _above(ours: PlayValues, theirs: PlayValues, member: NDArray[np.int64]) -> list[tuple[str, Above]]:
    found = []
    for metric in (*COMPARED, NEW_ITEMS):
        applies = ~np.isnan(ours[metric])
        if applies.any():
            one, two, who = ours[metric][applies], theirs[metric][applies], member[applies]
            found.append((metric, Above(Figure.of(lift_interval(one, two, who)), p_value(one, two, who))))
    return found


def _seed_run(seed: int, answered: Answered, task: Task, attributes: NDArray[np.float32]) -> SeedRun:
    values = play_metrics(answered.answers.ranked, task, attributes)
    means = {name: float(np.nanmean(v)) for name, v in values.items() if not np.isnan(v).all()}
    curve = tuple(
        EpochPoint(point.epoch, point.loss["total"], point.validation.ndcg_at_10 if point.validation else None)
        for point in answered.curve
    )
    return SeedRun(seed, {name: finite(value) for name, value in means.items()}, answered.epochs, curve)


def _heads(of_seeds: Sequence[Answered]) -> tuple[HeadResult, ...]:
    first = of_seeds[0].answers.heads
    results = []
    for name, outcomes in first.items():
        found = [head_quality(answered.answers.heads[name]) for answered in of_seeds]
        if not np.isnan(found[0].accuracy):
            means = {part: finite(float(np.mean([getattr(q, part) for q in found]))) for part in HeadQuality.__slots__}
            num_labels = outcomes.observed.sum(axis=1)
            results.append(
                HeadResult(
                    name=name,
                    plays=int((num_labels > 0).sum()),
                    has_several_labels=bool((num_labels > 1).any()),
                    bins=calibration_bins(outcomes),
                    **means,
                )
            )
    return tuple(results)
