"""Finished runs as rows of the history: one per data set, protocol, model, seed and metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from intentrec_core.evaluation.heads import head_quality
from intentrec_core.evaluation.lists import attribute_table
from intentrec_core.evaluation.metrics import lift_interval, mean_of_seeds, p_value
from intentrec_core.evaluation.outcome import COVERAGE, interval_of, list_coverage, play_metrics
from intentrec_core.evaluation.protocols import Protocol
from tests.bench.harness import commit_name
from tests.bench.quality.data_sets import Loaded
from tests.bench.quality.rows import Answers
from tests.bench.quality.runs import hashed, tasks_hash

#: What stands in the column "seed" for the mean over all seeds of a row.
MEAN = "mean"
#: The metric that choices are made by.
MAIN = "ndcg@10"
#: The metrics that a row of ours is compared by with every other row; that of new items only with popularity.
COMPARED, NEW_ITEMS = (MAIN, "mrr"), "hr@10, new items"

HistoryRow = Mapping[str, object]
PlayValues = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures come from. ``seed``: a number, or :data:`MEAN`. ``run``: the key of the run, or of all runs together.
    ``code``: a hash of the code and configuration of the row, or of both rows of a comparison.
    """

    loaded: Loaded
    protocol: Protocol
    model: str
    seed: int | str
    run: str
    code: str

    @property
    def member(self) -> NDArray[np.int64]:
        """Member index of each target."""
        return self.protocol.test.targets.member

    @property
    def columns(self) -> dict[str, object]:
        """What every row of the history says of its source."""
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit_name(),
            "data": self.loaded.name,
            "data_hash": self.loaded.digest,
            "protocol": self.protocol.name,
            "tasks": tasks_hash(self.loaded, self.protocol),
            "model": self.model,
            "seed": self.seed,
            "run": self.run,
            "code": self.code,
        }


def play_values(answers: Answers, loaded: Loaded, protocol: Protocol) -> PlayValues:
    """Every metric of a run that is a mean over plays, play by play."""
    return play_metrics(answers.ranked, protocol.test, attribute_table(loaded.table))


def mean_over_seeds(runs: Mapping[int, PlayValues]) -> PlayValues:
    """The mean over seeds of every metric, play by play."""
    return {m: mean_of_seeds([values[m] for values in runs.values()]) for m in next(iter(runs.values()))}


def history_rows(source: Source, answers: Answers, values: PlayValues) -> Iterator[HistoryRow]:
    """All figures of one run."""
    base = source.columns
    yield from _means(source, base, values)
    yield base | _figure(COVERAGE, list_coverage(answers.ranked, source.protocol.test))
    for name, outcomes in answers.heads.items():
        quality = head_quality(outcomes)
        for metric in ("accuracy", "macro_f1", "ece", "skill"):
            value = getattr(quality, metric)
            if not math.isnan(value):
                yield base | _figure(f"{name}: {metric}", value)
    if answers.note:
        yield base | {"metric": "note", "note": answers.note}


def mean_rows(source: Source, runs: Mapping[int, PlayValues]) -> Iterator[HistoryRow]:
    """The figures of a row with several seeds: seeds are averaged play by play, then members are resampled."""
    yield from _means(source, source.columns | {"seeds": sorted(runs)}, mean_over_seeds(runs))


def compared_rows(source: Source, ours: PlayValues, other: str, theirs: PlayValues) -> Iterator[HistoryRow]:
    """How far a row of ours is above another, with the same members resampled for both, and p."""
    for metric in (*COMPARED, NEW_ITEMS) if other.startswith("popular") else COMPARED:
        applies = ~np.isnan(ours[metric])
        if not applies.any():
            continue
        one, two, member = ours[metric][applies], theirs[metric][applies], source.member[applies]
        lift = lift_interval(one, two, member)
        row = source.columns | {"other": other} | _figure(f"{metric} above", lift.estimate, lift.low, lift.high)
        yield row | {"p": p_value(one, two, member)}


def pair_hash(ours: str, theirs: str) -> str:
    """The code that a comparison comes from: that of both rows."""
    return hashed(ours, theirs)


def _means(source: Source, base: dict[str, object], values: PlayValues) -> Iterator[HistoryRow]:
    for metric, of_plays in values.items():
        if (found := interval_of(of_plays, source.member)) is not None:
            yield base | _figure(metric, found.estimate, found.low, found.high)


def _figure(metric: str, value: float, low: float | None = None, high: float | None = None) -> dict[str, object]:
    figure: dict[str, object] = {"metric": metric, "value": round(value, 6) if math.isfinite(value) else None}
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        figure |= {"low": round(low, 6), "high": round(high, 6)}
    return figure
