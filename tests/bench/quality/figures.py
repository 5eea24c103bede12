"""Finished runs as rows of the history: one per data set, protocol, model, seed and metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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

#: What stands in the column "seed" for the mean over all seeds of a row.
MEAN = "mean"
#: The metric that rankers are compared by.
COMPARED = "ndcg@10"

HistoryRow = dict[str, object]
PlayValues = dict[str, NDArray[np.float64]]


def play_values(answers: Answers, loaded: Loaded, protocol: Protocol) -> PlayValues:
    """Every metric of a run that is a mean over plays, play by play."""
    return play_metrics(answers.ranked, protocol.test, attribute_table(loaded.table))


def history_rows(
    loaded: Loaded, protocol: Protocol, model: str, seed: int, key: str, answers: Answers, values: PlayValues
) -> Iterator[HistoryRow]:
    """All figures of one run."""
    base = _base(loaded, protocol, model, seed, key)
    member = protocol.test.targets.member
    for metric, of_plays in values.items():
        if (found := interval_of(of_plays, member)) is not None:
            yield base | _figure(metric, found.estimate, found.low, found.high)
    yield base | _figure(COVERAGE, list_coverage(answers.ranked, protocol.test))
    for name, outcomes in answers.heads.items():
        quality = head_quality(outcomes)
        for metric in ("accuracy", "macro_f1", "ece", "skill"):
            value = getattr(quality, metric)
            if not math.isnan(value):
                yield base | _figure(f"{name}: {metric}", value)
    if answers.note:
        yield base | {"metric": "note", "note": answers.note}


def mean_rows(
    loaded: Loaded, protocol: Protocol, model: str, runs: Mapping[int, PlayValues], key: str
) -> Iterator[HistoryRow]:
    """The figures of a row with several seeds: seeds are averaged play by play, then members are resampled."""
    base = _base(loaded, protocol, model, MEAN, key) | {"seeds": sorted(runs)}
    for metric in next(iter(runs.values())):
        averaged = mean_of_seeds([values[metric] for values in runs.values()])
        if (found := interval_of(averaged, protocol.test.targets.member)) is not None:
            yield base | _figure(metric, found.estimate, found.low, found.high)


def compared_rows(
    loaded: Loaded,
    protocol: Protocol,
    model: str,
    values: NDArray[np.float64],
    others: Mapping[str, NDArray[np.float64]],
    key: str,
) -> Iterator[HistoryRow]:
    """How far a model's NDCG@10 is above each other row's, with the same members resampled for both, and p."""
    member = protocol.test.targets.member
    for other, theirs in others.items():
        lift = lift_interval(values, theirs, member)
        row = _base(loaded, protocol, model, MEAN, key) | _figure(
            f"{COMPARED} above {other}", lift.estimate, lift.low, lift.high
        )
        yield row | {"p": p_value(values, theirs, member)}


def _base(loaded: Loaded, protocol: Protocol, model: str, seed: int | str, key: str) -> HistoryRow:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit_name(),
        "data": loaded.name,
        "data_hash": loaded.digest,
        "protocol": protocol.name,
        "model": model,
        "seed": seed,
        "run": key,
    }


def _figure(metric: str, value: float, low: float | None = None, high: float | None = None) -> HistoryRow:
    figure: HistoryRow = {"metric": metric, "value": round(value, 6)}
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        figure |= {"low": round(low, 6), "high": round(high, 6)}
    return figure
