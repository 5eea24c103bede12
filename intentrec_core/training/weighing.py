"""Chooses the weight of successors beside the trained score, on plays that the network has not learnt.

    plays ─┬─ before a moment ─▶ counts of transitions ─┐
           └─ from it on ─▶ the network's scores ───────┴─▶ NDCG@10 by weight ─▶ the best weight

On plays that were learnt, a network knows by heart what it is asked for, and a weight that is chosen there is too small.

Shapes: N targets, K weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.evaluation.metrics import quality
from intentrec_core.evaluation.model_ranks import ModelRanker
from intentrec_core.evaluation.targets import make_targets
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import cut_windows
from intentrec_core.successors import Successors, SuccessorTable

#: What a weight is chosen from. Between two neighbours NDCG@10 differs by less than 1 % near the best.
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
#: Fewer plays cannot tell two weights apart.
MIN_TARGETS = 500
#: Scores that are ranked for each weight; of a large catalogue only the newest plays are asked for.
MAX_SCORES = 1 << 29


def weigh_successors(
    network: IntentRec,
    features: FeatureBuilder,
    members: MemberPlays,
    *,
    from_ms: int,
    before: Successors | None = None,
    counted_until_ms: int = 0,
) -> Successors:
    """The transitions of the plays before ``from_ms``, with the weight that gives the highest NDCG@10 on the plays from then on;
    of equally good weights, the lowest.

    The network must not have learnt the plays from ``from_ms`` on. Where fewer than ``MIN_TARGETS`` of them can be asked for,
    nothing is chosen: the weight stays that of ``before``, and 0 where there is none.

    ``before``: the successors of a vocabulary that that of ``features`` extends, which have counted the plays before
    ``counted_until_ms``. Those plays are not counted again.

    Cost: one causal pass of the network over the contexts of the later plays, and K rankings of all items for each of them: at
    most K · ``MAX_SCORES`` scores, or those of ``MIN_TARGETS`` plays.
    """
    rows, ts_ms = features.rows(members.events["item_hash"]), members.events["ts_ms"]
    known = ts_ms < from_ms
    table = SuccessorTable.empty(network.num_rows) if before is None else before.table.extended(network.num_rows)
    table = table.counted(rows[known], members.member[known], ts_ms[known] >= counted_until_ms if before else None)
    if num_targets(members, from_ms) < MIN_TARGETS:
        return Successors(table, before.weight if before else 0.0)
    windows = cut_windows(
        members, from_ms=_newest_from(members, from_ms, max(MIN_TARGETS, MAX_SCORES // network.num_rows))
    )
    targets = make_targets(members, windows, rows, np.ones(network.num_rows, dtype=np.bool_))
    ranks_KN = ModelRanker(features, members, windows).ranks_by_weight(network, targets, table, WEIGHTS)
    return Successors(table, best_weight(ranks_KN))


def num_targets(members: MemberPlays, from_ms: int) -> int:
    """How many of the plays from ``from_ms`` on have an earlier play of their member, so that they can be asked for."""
    return int(_is_target(members, from_ms).sum())


def best_weight(ranks_KN: NDArray[np.float64]) -> float:
    """The one of ``WEIGHTS`` with the highest NDCG@10; of equally good ones the lowest. Shape: f64[K, N]."""
    return max(zip(WEIGHTS, ranks_KN, strict=True), key=lambda one: (quality(one[1]).ndcg_at_10, -one[0]))[0]


def _is_target(members: MemberPlays, from_ms: int) -> NDArray[np.bool_]:
    is_target: NDArray[np.bool_] = members.events["ts_ms"] >= from_ms
    is_target[members.bounds[:-1]] = False
    return is_target


def _newest_from(members: MemberPlays, from_ms: int, num: int) -> int:
    """The event time from which the ``num`` newest plays come that can be asked for; ``from_ms`` where there are no more."""
    ts_ms = np.sort(members.events["ts_ms"][_is_target(members, from_ms)])
    return from_ms if len(ts_ms) <= num else int(ts_ms[-num])
