"""Measures quality by how often weights are refreshed: one evaluation by the streaming protocol for each interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.results import MAIN, Freshness, RowResult
from intentrec_core.experiment.compared_rankers import ComparedRanker
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.evaluate import evaluate
from intentrec_core.experiment.watch import Watch

#: In place of a number of plays: the weights stay as they are.
NEVER = 0


def freshness(
    data: ExperimentData,
    rankers: Sequence[ComparedRanker],
    make_stream: Callable[[int], Protocol],
    intervals: Sequence[int],
    *,
    seed: int,
    watch: Watch,
    known: Mapping[int, Sequence[RowResult]] | None = None,
) -> Freshness:
    """NDCG@10 of every ranker by the number of plays between two refreshes, freshest first.

    ``intervals`` are numbers of plays, or :data:`NEVER`. ``make_stream`` makes the protocol of an interval. ``known`` has the
    rows of intervals that are evaluated already.

    Cost: each other interval chooses on its validation and trains anew.
    """
    ordered = sorted(set(intervals), key=lambda plays: (plays == NEVER, plays))
    found = dict(known or {})
    for plays in ordered:
        if plays not in found:
            protocol = make_stream(len(data.asked.place) if plays == NEVER else plays)
            found[plays] = evaluate(data, protocol, rankers, seeds=[seed], watch=watch).evaluation.rows
    gain = {plays: {row.name: row.metrics[MAIN] for row in rows} for plays, rows in found.items()}
    return Freshness(
        "NDCG@10 by how often weights are refreshed",
        tuple("never" if plays == NEVER else f"every {plays:,} plays" for plays in ordered),
        tuple((ranker.name, tuple(gain[plays][ranker.name] for plays in ordered)) for ranker in rankers),
    )
