"""The gate: refuses a candidate model that is certainly worse than the serving bundle.

Both models rank every item for the same newest plays, which neither was trained on, from the contexts that a worker would have
had. A bootstrap over members (95 %) separates a worse model from bad luck: the gate refuses a candidate if even the upper end
of the interval lies more than the margin below the serving bundle. Golden queries are not part of the gate: they are written
into each bundle, and every process that loads the bundle repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.evaluation.metrics import Interval, Quality, gains, lift_interval, quality
from intentrec_core.evaluation.model_ranks import Contender, ModelRanker, ModelRanks
from intentrec_core.evaluation.targets import make_targets
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import Windows, cut_windows
from stream.trainer.retrain_job import GateReason


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """The gate's verdict and its measurements. ``running`` metrics are None if no bundle serves yet.

    ``items`` and ``intents``: by how much the candidate's NDCG@10 and intent accuracy exceed the running bundle's, as a ratio
    with its interval.
    """

    reason: GateReason
    detail: str
    candidate: Quality
    running: Quality | None = None
    candidate_accuracy: float = 0.0
    running_accuracy: float | None = None
    items: Interval | None = None
    intents: Interval | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate may be published."""
        return self.reason is GateReason.PASSED


def judge(
    candidate: Contender, running: Contender | None, members: MemberPlays, *, from_ms: int, margin: float
) -> GateResult:
    """Compares both models on the plays from ``from_ms`` on that have an earlier play of the same member.

    ``margin``: how much worse a candidate may be and still pass, as a ratio of the running bundle's metric.
    Cost: one causal pass per model over the contexts of the held-out plays.
    """
    if not is_finite(candidate.model):
        nothing = quality(np.zeros(0))
        return GateResult(reason=GateReason.NOT_FINITE, detail="a weight is NaN or infinite", candidate=nothing)
    windows = cut_windows(members, from_ms=from_ms)
    ours, member = _ranks(candidate, members, windows)
    our_hits = _intent_hits(ours)
    our_quality, our_accuracy = quality(ours.ranks), _mean(our_hits)
    if running is None:
        detail = f"first bundle; NDCG@10 {our_quality.ndcg_at_10:.4f} on {our_quality.num_plays} plays"
        return GateResult(
            reason=GateReason.PASSED, detail=detail, candidate=our_quality, candidate_accuracy=our_accuracy
        )
    theirs, _ = _ranks(running, members, windows)
    their_hits = _intent_hits(theirs)
    their_quality, their_accuracy = quality(theirs.ranks), _mean(their_hits)
    items = _lift(gains(ours.ranks), gains(theirs.ranks), member)
    intents = _lift(our_hits, their_hits, member)
    reason, detail = GateReason.PASSED, f"NDCG@10 {_compared(items)}, intent accuracy {_compared(intents)}"
    if items is not None and items.high < -margin:
        reason = GateReason.WORSE_ITEMS
        detail = f"NDCG@10 {our_quality.ndcg_at_10:.4f}, was {their_quality.ndcg_at_10:.4f} ({_compared(items)})"
    elif intents is not None and intents.high < -margin:
        reason = GateReason.WORSE_INTENTS
        detail = f"intent accuracy {our_accuracy:.4f}, was {their_accuracy:.4f} ({_compared(intents)})"
    return GateResult(
        reason=reason,
        detail=f"{detail} on {our_quality.num_plays} plays",
        candidate=our_quality,
        running=their_quality,
        candidate_accuracy=our_accuracy,
        running_accuracy=their_accuracy,
        items=items,
        intents=intents,
    )


def is_finite(model: IntentRec) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def _ranks(contender: Contender, members: MemberPlays, windows: Windows) -> tuple[ModelRanks, NDArray[np.int64]]:
    """A model's ranks and the member of each. An item missing from the vocabulary counts as a miss: it cannot be recommended."""
    rows = contender.features.rows(members.events["item_hash"])
    everything = np.ones(contender.model.num_rows, dtype=np.bool_)
    targets = make_targets(members, windows, rows, everything)
    ranker = ModelRanker(contender.features, members, windows)
    return ranker.rank(contender.model, targets, contender.successors), targets.member


def _intent_hits(ranks: ModelRanks) -> NDArray[np.float64]:
    """Ratio of intent heads predicted correctly for each play; NaN for a play without a known label. Shapes: f64[N]."""
    if not ranks.correct:
        return np.full(len(ranks.ranks), np.nan)
    hits_NM = np.stack(list(ranks.correct.values()), axis=1)
    known = (~np.isnan(hits_NM)).sum(axis=1)
    return np.where(known > 0, np.nansum(hits_NM, axis=1) / np.maximum(known, 1), np.nan)


def _mean(hits: NDArray[np.float64]) -> float:
    known = hits[~np.isnan(hits)]
    return float(known.mean()) if len(known) else 0.0


def _lift(ours: NDArray[np.float64], theirs: NDArray[np.float64], member: NDArray[np.int64]) -> Interval | None:
    """The relative lift, or None if the running bundle scores 0 everywhere: no candidate can be worse than that."""
    known = ~np.isnan(ours) & ~np.isnan(theirs)
    if not theirs[known].any():
        return None
    return lift_interval(ours[known], theirs[known], member[known])


def _compared(lift: Interval | None) -> str:
    return "not comparable" if lift is None else f"{lift.estimate:+.1%}, at best {lift.high:+.1%}"
