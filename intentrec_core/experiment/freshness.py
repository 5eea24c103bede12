"""What it is worth to refresh weights often: the streaming protocol, asked once for each interval between refreshes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.results import MAIN, Freshness
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
) -> Freshness:
    """NDCG@10 of every ranker by the number of plays between two refreshes, freshest first.

    ``make_stream`` makes the protocol of an interval; ``intervals`` are numbers of plays, or :data:`NEVER`. Cost: every interval
    is an evaluation of its own, with its choices on the validation and its training.
    """
    ordered = sorted(set(intervals), key=lambda plays: (plays == NEVER, plays))
    found = []
    for plays in ordered:
        protocol = make_stream(len(data.asked.place) if plays == NEVER else plays)
        found.append(evaluate(data, protocol, rankers, seeds=[seed], watch=watch).evaluation.rows)
    return Freshness(
        "NDCG@10 by how often weights are refreshed",
        tuple("never" if plays == NEVER else f"every {plays:,} plays" for plays in ordered),
        tuple((row.name, tuple(rows[place].metrics[MAIN] for rows in found)) for place, row in enumerate(found[0])),
    )
