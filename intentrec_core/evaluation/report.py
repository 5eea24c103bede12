"""The evaluation: compares IntentRec with reference rankers on the same plays and with the same filter, with intervals
over members.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.baselines.popularity import DAY_S, WEEK_S
from intentrec_core.errors import DataError
from intentrec_core.evaluation import comparison as names
from intentrec_core.evaluation.comparison import Comparison, HeadRow, ModelQuality, RankerRow
from intentrec_core.evaluation.metrics import gains, lift_interval, mean_accuracy, mean_interval, quality
from intentrec_core.evaluation.model_ranks import Contender, ModelRanker
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, Ranker, ranks_alone
from intentrec_core.evaluation.targets import make_targets
from intentrec_core.evaluation.task import EvaluationData, Task
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.windows import NEVER_MS, cut_windows

#: What IntentRec is compared with. A chain that is not online has learned the plays before the cut, as the model has.
REFERENCES: Mapping[str, Ranker] = {
    names.POPULAR_DAY: PopularityRanker(DAY_S),
    names.POPULAR: PopularityRanker(WEEK_S),
    names.POPULAR_MONTH: PopularityRanker(30 * DAY_S),
    names.POPULAR_EVER: PopularityRanker(math.inf),
    names.MARKOV_FIRST: MarkovRanker(MarkovSettings(lags=1)),
    names.MARKOV: MarkovRanker(),
    names.MARKOV_WIDE: MarkovRanker(MarkovSettings(spread=5)),
    names.MARKOV_ONLINE: MarkovRanker(online=True),
    names.MARKOV_WIDE_ONLINE: MarkovRanker(MarkovSettings(spread=5), online=True),
}


def evaluate(
    model: IntentRec,
    features: FeatureBuilder,
    plays: pa.Table | MemberPlays,
    *,
    from_ms: int,
    until_ms: int = NEVER_MS,
    filter_watched: bool | None = None,
) -> ModelQuality:
    """Quality of ``model`` (with the vocabulary of ``features``) on plays with ``from_ms`` <= event time <
    ``until_ms``.

    Earlier plays are context. All rows of the model are ranked; a play of an item without a row is a miss.
    """
    members = plays if isinstance(plays, MemberPlays) else pack_members(features.layout, plays)
    windows = cut_windows(members, from_ms=from_ms, until_ms=until_ms)
    rows = features.rows(members.events["item_hash"])
    everything = np.ones(model.num_rows, dtype=np.bool_)
    targets = make_targets(members, windows, rows, everything, filter_watched=filter_watched)
    found = ModelRanker(features, members, windows).rank(model, targets)
    return ModelQuality(quality(found.ranks), mean_accuracy(found.correct))


def compare(
    ours: Contender,
    plays: pa.Table | MemberPlays,
    *,
    cut_ms: int,
    without_intent: Contender | None = None,
    filter_watched: bool | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares a model, trained on plays before ``cut_ms``, with the references on the later plays.

    ``plays`` contains both: the context of a test play are all earlier plays of its member, test plays included. The
    first play of a member has no context and is not predicted. ``without_intent`` is the same model trained without the
    intent stage, with the same features.

    Raises: DataError when no test play has a context.
    """
    model, features = ours.model, ours.features
    members = plays if isinstance(plays, MemberPlays) else pack_members(features.layout, plays)
    windows = cut_windows(members, from_ms=cut_ms)
    if not len(windows):
        raise DataError("no play after the cut has an earlier play of its member: use more plays or an earlier cut")
    all_rows = features.rows(members.events["item_hash"])
    trained = members.events["ts_ms"] < cut_ms
    candidate = np.zeros(model.num_rows, dtype=np.bool_)
    candidate[all_rows[trained]] = True
    candidate[0] = False
    ranker = ModelRanker(features, members, windows)
    targets = make_targets(members, windows, all_rows, candidate, filter_watched=filter_watched)
    found = ranker.rank(model, targets, ours.successors)
    targets = dataclasses.replace(targets, lifted=found.lifted)  # all rankers hide the same items
    data = EvaluationData.of(members, features, candidate)
    task = Task(
        data=data,
        targets=targets,
        windows=windows,
        learnable=np.ones(len(trained), dtype=np.bool_),
        learned=np.full(len(targets), int(trained.sum())),
        live=data.place[targets.play],
        countable=data.place[targets.play],
        now_s=data.ts_s[targets.play],
    )
    ranks = {names.INTENTREC: found.ranks}
    if without_intent is not None:
        ranks[names.NO_INTENT] = ranker.rank(without_intent.model, targets, without_intent.successors).ranks
    ranks |= {name: ranks_alone(reference, task) for name, reference in REFERENCES.items()}
    in_training = ModelRanker(features, members, cut_windows(members, until_ms=cut_ms)).label_shares(model)
    in_test = ranker.label_shares(model)
    return Comparison(
        cut_ms=cut_ms,
        num_plays=len(targets),
        num_members=len(np.unique(targets.member)),
        num_new_members=len(np.unique(targets.member[task.is_new_member()])),
        num_candidates=int(targets.candidate.sum()),
        unseen=int((~targets.candidate[targets.row]).sum()),
        filtered=targets.filter_watched,
        rankers=tuple(_ranker_rows(ranks, targets.member, seed)),
        heads=tuple(
            HeadRow(
                name=name,
                accuracy=mean_interval(hits[~np.isnan(hits)], targets.member[~np.isnan(hits)], seed=seed),
                most_common=float(in_test[name][in_training[name].argmax()]),
                num_plays=int((~np.isnan(hits)).sum()),
            )
            for name, hits in found.correct.items()
            if not np.isnan(hits).all()
        ),
    )


def _ranker_rows(ranks: Mapping[str, NDArray[np.float64]], member: NDArray[np.int64], seed: int) -> Iterator[RankerRow]:
    ours = gains(ranks[names.INTENTREC])
    for name, found in ranks.items():
        gain = gains(found)
        lift = None if name == names.INTENTREC else lift_interval(ours, gain, member, seed=seed)
        yield RankerRow(name, quality(found), mean_interval(gain, member, seed=seed), lift)
