"""The evaluation: compares IntentRec with reference rankers on the same plays and with the same filter, with intervals
over members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intentrec_core.baselines.markov import MarkovChain
from intentrec_core.errors import DataError
from intentrec_core.evaluation import comparison as names
from intentrec_core.evaluation.comparison import Comparison, HeadRow, ModelQuality, RankerRow
from intentrec_core.evaluation.metrics import gains, lift_interval, mean_accuracy, mean_interval, quality
from intentrec_core.evaluation.model_ranks import ModelRanker
from intentrec_core.evaluation.reference_ranks import rank_in_time
from intentrec_core.evaluation.targets import Targets, make_targets
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.windows import NEVER_MS, cut_windows


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
    model: IntentRec,
    features: FeatureBuilder,
    plays: pa.Table | MemberPlays,
    *,
    cut_ms: int,
    without_intent: IntentRec | None = None,
    filter_watched: bool | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares ``model``, trained on the plays before ``cut_ms``, with the references on the later plays.

    ``plays`` contains both: the context of a test play are all earlier plays of its member, test plays included. The
    first play of a member has no context and is not predicted. ``without_intent`` is the same model trained without the
    intent stage.

    Raises: DataError when no test play has a context.
    """
    members = plays if isinstance(plays, MemberPlays) else pack_members(features.layout, plays)
    windows = cut_windows(members, from_ms=cut_ms)
    if not len(windows):
        raise DataError("no play after the cut has an earlier play of its member: use more plays or an earlier cut")
    all_rows = features.rows(members.events["item_hash"])
    trained = members.events["ts_ms"] < cut_ms
    candidate = np.zeros(model.num_rows, dtype=np.bool_)
    candidate[all_rows[trained]] = True
    targets = make_targets(members, windows, all_rows, candidate, filter_watched=filter_watched)
    ranker = ModelRanker(features, members, windows)
    ours = ranker.rank(model, targets)
    ranks = {names.INTENTREC: ours.ranks}
    if without_intent is not None:
        ranks[names.NO_INTENT] = ranker.rank(without_intent, targets, decides_filter=False).ranks
    ranks |= _reference_ranks(targets, trained)
    in_training = ModelRanker(features, members, cut_windows(members, until_ms=cut_ms)).label_shares(model)
    in_test = ranker.label_shares(model)
    return Comparison(
        cut_ms=cut_ms,
        num_plays=len(targets),
        num_members=len(np.unique(targets.member)),
        num_new_members=_num_new(targets, trained),
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
            for name, hits in ours.correct.items()
            if not np.isnan(hits).all()
        ),
    )


def _reference_ranks(targets: Targets, trained: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Ranks by popularity and by the Markov chains, in one pass through time."""
    num_rows, members = len(targets.candidate), targets.members
    sequences = [targets.all_rows[a:b][trained[a:b]] for a, b in members.spans()]
    chain = MarkovChain(num_rows).fit(sequences)
    wide = MarkovChain(num_rows, spread=chain.lags).fit(sequences)
    found = rank_in_time(targets, [lambda _, counts: counts, chain.scores, wide.scores], lags=chain.lags)
    return dict(zip((names.POPULAR, names.MARKOV, names.MARKOV_WIDE), found, strict=True))


def _ranker_rows(ranks: Mapping[str, NDArray[np.float64]], member: NDArray[np.int64], seed: int) -> Iterator[RankerRow]:
    ours = gains(ranks[names.INTENTREC])
    for name, found in ranks.items():
        gain = gains(found)
        lift = None if name == names.INTENTREC else lift_interval(ours, gain, member, seed=seed)
        yield RankerRow(name, quality(found), mean_interval(gain, member, seed=seed), lift)


def _num_new(targets: Targets, trained: NDArray[np.bool_]) -> int:
    """Number of test members without a play in training."""
    return sum(
        not trained[a:b].any() for a, b in (targets.members.bounds[m : m + 2] for m in np.unique(targets.member))
    )
