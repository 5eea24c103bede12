"""Ranks are those of the lists a worker would serve: recomputed here play by play, the slow way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intentrec_core.baselines.markov import MarkovChain
from intentrec_core.baselines.popularity import WEEK_S
from intentrec_core.engine.reference import recompute
from intentrec_core.evaluation.model_ranks import ModelRanker
from intentrec_core.evaluation.reference_ranks import rank_in_time
from intentrec_core.evaluation.targets import Targets, make_targets
from intentrec_core.history.history import EventLayout, hash64
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.table import PlayRow, play_rows
from intentrec_core.plays.windows import Windows, cut_windows
from tests.worlds.naive_score import naive_offsets, naive_scores
from tests.worlds.tiny_plays import random_plays, served_histories
from tests.worlds.tiny_world import TinyWorld

TABLE = random_plays(members=4, plays=120)
PLAYS = list(play_rows(TABLE))
CUT_MS = PLAYS[60].ts_ms


class Halved:
    """Targets of the second half of the plays."""

    def __init__(self, world: TinyWorld, *, filter_watched: bool = True) -> None:
        self.members: MemberPlays = pack_members(world.layout, TABLE)
        self.windows: Windows = cut_windows(self.members, from_ms=CUT_MS)
        self.rows = world.features.rows(self.members.events["item_hash"])
        candidate = np.zeros(len(world.vocabulary), dtype=np.bool_)
        candidate[self.rows[self.members.events["ts_ms"] < CUT_MS]] = True
        self.targets: Targets = make_targets(
            self.members, self.windows, self.rows, candidate, filter_watched=filter_watched
        )

    def plays_of(self, target: int) -> tuple[list[PlayRow], PlayRow]:
        """All plays of the target's member before it, and the target."""
        play = int(self.targets.play[target])
        member = int(self.members.member[play])
        own = [p for p in PLAYS if p.user_id == self.members.user_ids[member]]
        place = play - int(self.members.bounds[member])
        return own[:place], own[place]


def mid_rank(scores: np.ndarray, row: int, candidate: np.ndarray, hidden: set[int]) -> float:
    allowed = [r for r in range(len(scores)) if candidate[r] and r not in hidden]
    if row not in allowed:
        return np.inf
    others = [scores[r] for r in allowed if r != row]
    return 1 + sum(s > scores[row] for s in others) + sum(s == scores[row] for s in others) / 2


@pytest.mark.parametrize("item_counts", [False, True])
@pytest.mark.parametrize("filter_watched", [True, False])
def test_a_models_ranks_are_those_of_serving_play_by_play(
    world: TinyWorld, filter_watched: bool, item_counts: bool
) -> None:
    halved, model = Halved(world, filter_watched=filter_watched), world.model(item_counts=item_counts)
    all_plays = [(world.vocabulary.row(p.item_id), p.ts_ms / 1000) for p in PLAYS]
    targets = halved.targets
    found = ModelRanker(world.features, halved.members, halved.windows).rank(model, targets)
    keeps_watching = world.domain.heads[0].label_names.index("continue")
    row_of = {hash64(item): row for row, item in enumerate(world.vocabulary.item_ids)}
    lifted = []
    for i in range(len(targets)):
        before, play = halved.plays_of(i)
        context, watched = served_histories(world.layout, [*before, play])[-1]
        encoded = recompute(model, world.features, [context])
        lifted.append(encoded.heads[0][0].argmax() == keeps_watching)
        hidden = {row_of.get(h, 0) for h in watched} if filter_watched and not lifted[-1] else set()
        scores = naive_scores(model, world.table, encoded)
        if item_counts:
            scores += naive_offsets(model, encoded, all_plays, play.ts_ms / 1000)
        # Batched and single passes differ in the last bits, so near ties may change places: none does with this seed.
        assert found.ranks[i] == mid_rank(scores, targets.row[i], targets.candidate, hidden)
    assert targets.lifted.tolist() == lifted
    assert 0 < sum(lifted) < len(lifted)


def test_a_heads_accuracy_counts_true_labels_of_the_next_play(world: TinyWorld) -> None:
    halved, model = Halved(world), world.model()
    found = ModelRanker(world.features, halved.members, halved.windows).rank(model, halved.targets)
    genres = world.domain.heads[2]
    assert genres.name == "genre"
    for i in range(len(halved.targets)):
        before, _ = halved.plays_of(i)
        context, _ = served_histories(world.layout, [*before, before[0]])[-1]
        label = recompute(model, world.features, [context]).heads[2][0].argmax()
        truth = world.table.multi["genre"][halved.targets.row[i]]
        expected = np.nan if not truth.any() else truth[label]
        np.testing.assert_equal(found.correct["genre"][i], expected)


def test_a_model_without_intents_is_judged_by_the_other_models_filter(world: TinyWorld) -> None:
    halved = Halved(world)
    ranker = ModelRanker(world.features, halved.members, halved.windows)
    ranker.rank(world.model(), halved.targets)
    before = halved.targets.lifted.copy()
    found = ranker.rank(world.model(intent_stage=False), halved.targets, decides_filter=False)
    assert found.correct == {}
    assert halved.targets.lifted.tolist() == before.tolist()


def popularity_ranks(halved: Halved, window_s: float = WEEK_S) -> NDArray[np.float64]:
    return rank_in_time(halved.targets, [lambda _, counts: counts], lags=0, window_s=window_s)[0]


def test_popularity_ranks_by_the_plays_of_the_window_before_each_play(world: TinyWorld) -> None:
    halved, window_s = Halved(world), 900.0
    ranks = popularity_ranks(halved, window_s=window_s)
    for i in range(len(halved.targets)):
        before, play = halved.plays_of(i)
        earlier = PLAYS[: PLAYS.index(play)]
        counts = np.zeros(len(world.vocabulary))
        for p in earlier:
            if p.ts_ms > play.ts_ms - 1000 * window_s:
                counts[world.vocabulary.row(p.item_id)] += 1
        hidden = {world.vocabulary.row(p.item_id) for p in before[-world.domain.watched :]}
        assert ranks[i] == mid_rank(counts, halved.targets.row[i], halved.targets.candidate, hidden)


def test_markov_ranks_by_each_members_last_plays(world: TinyWorld) -> None:
    halved = Halved(world)
    trained = halved.members.events["ts_ms"] < CUT_MS
    chain = MarkovChain(len(world.vocabulary), backoff=0.0)
    chain.fit([halved.rows[a:b][trained[a:b]] for a, b in halved.members.spans()])
    ranks = rank_in_time(halved.targets, [chain.scores], lags=chain.lags)[0]
    for i in range(len(halved.targets)):
        before, _ = halved.plays_of(i)
        last = np.array([world.vocabulary.row(p.item_id) for p in before])
        scores = chain.scores(last, np.zeros(len(world.vocabulary), dtype=np.float32))
        hidden = {world.vocabulary.row(p.item_id) for p in before[-world.domain.watched :]}
        assert ranks[i] == mid_rank(scores, halved.targets.row[i], halved.targets.candidate, hidden)


def test_items_never_seen_in_training_are_misses_and_recommended_to_nobody(world: TinyWorld) -> None:
    halved = Halved(world)
    candidate = np.zeros(len(world.vocabulary), dtype=np.bool_)
    candidate[1:4] = True
    targets = make_targets(halved.members, halved.windows, halved.rows, candidate, filter_watched=False)
    scores = torch.rand(len(targets), len(candidate))
    ranks = targets.ranks(np.arange(len(targets)), scores)
    assert np.isinf(ranks).tolist() == (~candidate[targets.row]).tolist()
    assert ranks[~np.isinf(ranks)].max() <= 3


def test_equal_scores_share_the_middle_of_their_ranks(world: TinyWorld) -> None:
    halved = Halved(world, filter_watched=False)
    known = np.flatnonzero(halved.targets.candidate[halved.targets.row])[:2]
    ranks = halved.targets.ranks(known, torch.zeros(2, len(world.vocabulary)))
    assert ranks.tolist() == [(1 + halved.targets.candidate.sum()) / 2] * 2


def test_scores_that_are_no_numbers_are_misses(world: TinyWorld) -> None:
    """A broken model must not look perfect: nothing compares as larger than NaN."""
    halved = Halved(world, filter_watched=False)
    known = np.flatnonzero(halved.targets.candidate[halved.targets.row])[:2]
    scores = torch.zeros(2, len(world.vocabulary))
    assert np.isinf(halved.targets.ranks(known, scores * torch.nan)).all()
    scores[:, 1:] = torch.nan
    scores[[0, 1], halved.targets.row[known]] = 1.0
    assert halved.targets.ranks(known, scores).tolist() == [float(halved.targets.candidate.sum())] * 2


def test_the_watched_filter_is_that_of_the_domain(world: TinyWorld) -> None:
    halved = Halved(world)
    undeclared = dataclasses.replace(world.domain, filters=())
    members = dataclasses.replace(halved.members, layout=EventLayout(undeclared))
    assert make_targets(
        halved.members, halved.windows, halved.targets.all_rows, halved.targets.candidate
    ).filter_watched
    assert not make_targets(members, halved.windows, halved.targets.all_rows, halved.targets.candidate).filter_watched


def test_a_small_budget_of_scores_changes_no_rank(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    halved, model = Halved(world), world.model()
    ranker = ModelRanker(world.features, halved.members, halved.windows)
    whole = (ranker.rank(model, halved.targets).ranks, popularity_ranks(halved))
    monkeypatch.setattr("intentrec_core.evaluation.model_ranks.MAX_SCORES", 100)
    monkeypatch.setattr("intentrec_core.evaluation.reference_ranks.MAX_SCORES", 100)
    parts = (ranker.rank(model, halved.targets).ranks, popularity_ranks(halved))
    assert [p.tolist() for p in parts] == [w.tolist() for w in whole]


def test_a_model_can_be_ranked_without_gradients_left_behind(world: TinyWorld) -> None:
    halved, model = Halved(world), world.model()
    ModelRanker(world.features, halved.members, halved.windows).rank(model, halved.targets)
    assert isinstance(model, IntentRec)
    assert all(p.grad is None for p in model.parameters())
