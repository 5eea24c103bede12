"""Ranks are those of the lists a worker would serve: recomputed here play by play, the slow way."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.engine.reference import recompute
from intentrec_core.evaluation.model_ranks import ModelRanker
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, ranks_alone
from intentrec_core.evaluation.targets import Targets, make_targets
from intentrec_core.evaluation.task import EvaluationData, Task
from intentrec_core.history.history import EventLayout, hash64
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.table import PlayRow, play_rows
from intentrec_core.plays.windows import Windows, cut_windows
from intentrec_core.successors import Successors
from tests.worlds.naive_score import (
    naive_offsets,
    naive_own_offsets,
    naive_popularity,
    naive_scores,
    naive_successor_offsets,
)
from tests.worlds.tiny_plays import random_plays, served_histories
from tests.worlds.tiny_world import TinyWorld, random_successors

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

        data = EvaluationData.of(self.members, world.features, candidate)
        self.task = Task(
            data=data,
            targets=self.targets,
            windows=self.windows,
            learnable=np.ones(len(PLAYS), dtype=np.bool_),
            learned=np.full(len(self.targets), 60),
            live=data.place[self.targets.play],
            countable=data.place[self.targets.play],
            now_s=data.ts_s[self.targets.play],
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


PARTS = [(), ("item_counts",), ("own_items",), ("own_items", "successors"), ("item_counts", "successors")]


@pytest.mark.parametrize("parts", PARTS, ids="+".join)
@pytest.mark.parametrize("filter_watched", [True, False])
def test_a_models_ranks_are_those_of_serving_play_by_play(
    world: TinyWorld, filter_watched: bool, parts: tuple[str, ...]
) -> None:
    if "successors" in parts:  # a context has fewer plays than successors look at
        world = TinyWorld(window=2)
    halved = Halved(world, filter_watched=filter_watched)
    model = world.model(item_counts="item_counts" in parts, own_items="own_items" in parts)
    successors = random_successors(model.num_rows) if "successors" in parts else None
    all_plays = [(world.vocabulary.row(p.item_id), p.ts_ms / 1000) for p in PLAYS]
    targets = halved.targets
    found = ModelRanker(world.features, halved.members, halved.windows).rank(model, targets, successors)
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
        if "item_counts" in parts:
            scores += naive_offsets(model, encoded, all_plays, play.ts_ms / 1000)
        if "own_items" in parts:
            scores += naive_own_offsets(model, world.features, context, encoded)
        if successors is not None:
            at_s, refresh_s = play.ts_ms / 1000, model.config.count_refresh_s
            popularity = (
                naive_popularity(all_plays, model.num_rows, at_s, refresh_s) if "item_counts" in parts else None
            )
            scores += naive_successor_offsets(successors, world.features, context, popularity)
        # Batched and single passes differ in the last bits, so near ties may change places: none does with this seed.
        assert found.ranks[i] == mid_rank(scores, targets.row[i], targets.candidate, hidden)
    assert found.lifted.tolist() == lifted
    assert 0 < sum(lifted) < len(lifted)


def test_ranks_by_weight_are_those_with_each_weight(world: TinyWorld) -> None:
    halved, model, table = Halved(world), world.model(own_items=True), random_successors(len(world.vocabulary)).table
    ranker, weights = ModelRanker(world.features, halved.members, halved.windows), (0.0, 0.5, 4.0)
    found = ranker.ranks_by_weight(model, halved.targets, table, weights)
    for ranks, weight in zip(found, weights, strict=True):
        alone = ranker.rank(model, halved.targets, Successors(table, weight))
        np.testing.assert_array_equal(ranks, alone.ranks)
        assert alone.lifted.any()
    assert not (found[0] == found[2]).all()
    assert not halved.targets.lifted.any(), "no ranking changes the targets of the next one"


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
    lifted = ranker.rank(world.model(), halved.targets).lifted
    assert lifted.any()
    assert not halved.targets.lifted.any(), "no ranking changes the targets of the next one"
    found = ranker.rank(world.model(intent_stage=False), dataclasses.replace(halved.targets, lifted=lifted))
    assert found.correct == {}
    assert found.lifted.tolist() == lifted.tolist()


@pytest.mark.parametrize("window_s", [900.0, math.inf])
def test_popularity_ranks_by_the_plays_of_the_window_before_each_play(world: TinyWorld, window_s: float) -> None:
    halved = Halved(world)
    ranks = ranks_alone(PopularityRanker(window_s), halved.task)
    for i in range(len(halved.targets)):
        before, play = halved.plays_of(i)
        counts = np.zeros(len(world.vocabulary))
        for p in PLAYS[: PLAYS.index(play)]:
            if p.ts_ms > play.ts_ms - 1000 * window_s:
                counts[world.vocabulary.row(p.item_id)] += 1
        hidden = {world.vocabulary.row(p.item_id) for p in before[-world.domain.watched :]}
        assert ranks[i] == mid_rank(counts, halved.targets.row[i], halved.targets.candidate, hidden)


def chances(world: TinyWorld, plays: list[PlayRow], settings: MarkovSettings) -> NDArray[np.float64]:
    """What followed what in ``plays``: count[before, after] / (count[before] + shrinkage). Row 0 stays empty."""
    count = np.zeros((len(world.vocabulary), len(world.vocabulary)))
    for user in {p.user_id for p in plays}:
        rows = [world.vocabulary.row(p.item_id) for p in plays if p.user_id == user]
        for gap in range(1, settings.spread + 1):
            for before, after in zip(rows, rows[gap:], strict=False):
                count[before, after] += settings.decay ** (gap - 1) * (before > 0) * (after > 0)
    return count / (count.sum(axis=1, keepdims=True) + settings.shrinkage)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("spread", [1, 3])
def test_a_chain_ranks_by_what_followed_the_members_last_plays(world: TinyWorld, online: bool, spread: int) -> None:
    halved = Halved(world)
    settings = MarkovSettings(lags=3, decay=0.5, shrinkage=2.0, backoff=0.3, spread=spread, backoff_window_s=math.inf)
    scores = np.zeros((len(halved.targets), len(world.vocabulary)))
    for which, chunk in MarkovRanker(settings, online).scores(halved.task):
        scores[which] = chunk.numpy()
    for i in range(len(halved.targets)):
        before, play = halved.plays_of(i)
        earlier = PLAYS[: PLAYS.index(play)]
        chance = chances(world, earlier if online else PLAYS[:60], settings)
        counts = np.bincount([world.vocabulary.row(p.item_id) for p in earlier], minlength=len(chance)).astype(float)
        counts[0] = 0
        expected = 0.3 * counts / counts.sum()
        for back, p in enumerate(before[:-4:-1]):
            expected += 0.5**back * chance[world.vocabulary.row(p.item_id)]
        np.testing.assert_allclose(scores[i], expected, atol=1e-6)


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
    popular = PopularityRanker(900.0)
    whole = (ranker.rank(model, halved.targets).ranks, ranks_alone(popular, halved.task))
    monkeypatch.setattr("intentrec_core.evaluation.model_ranks.MAX_MODEL_SCORES", 100)
    monkeypatch.setattr("intentrec_core.evaluation.rankers.MAX_REFERENCE_SCORES", 100)
    parts = (ranker.rank(model, halved.targets).ranks, ranks_alone(popular, halved.task))
    assert [p.tolist() for p in parts] == [w.tolist() for w in whole]


def test_a_model_can_be_ranked_without_gradients_left_behind(world: TinyWorld) -> None:
    halved, model = Halved(world), world.model()
    ModelRanker(world.features, halved.members, halved.windows).rank(model, halved.targets)
    assert isinstance(model, IntentRec)
    assert all(p.grad is None for p in model.parameters())


def test_the_whole_history_is_hidden_where_it_says_so(world: TinyWorld) -> None:
    """A worker hides the last w plays; an evaluation that hides no more lets a long history's first items come back."""
    halved = Halved(world)
    whole = dataclasses.replace(halved.targets, whole_history=True)
    more = 0
    for i in range(len(whole)):
        before, _ = halved.plays_of(i)
        rows = {world.vocabulary.row(p.item_id) for p in before}
        assert set(whole.watched(np.array([i]))[0].tolist()) - {0} == rows - {0}
        more += rows > set(halved.targets.watched(np.array([i]))[0].tolist())
    assert more > 0


def test_hidden_items_with_a_score_of_zero_stand_above_negative_ones(world: TinyWorld) -> None:
    """What published code does that sets hidden scores to 0: the table prints it once, to compare."""
    halved = Halved(world)
    known = np.flatnonzero(halved.targets.candidate[halved.targets.row])
    known = known[[halved.targets.row[i] not in halved.targets.watched(np.array([i])) for i in known]][:5]
    scores = -1.0 - torch.rand(len(known), len(world.vocabulary), generator=torch.Generator().manual_seed(0))
    right = halved.targets.ranks(known, scores.clone())
    zeroed = dataclasses.replace(halved.targets, hidden_score=0.0).ranks(known, scores.clone())
    hidden = [
        len({r for r in halved.targets.watched(np.array([i]))[0].tolist() if halved.targets.candidate[r]})
        for i in known
    ]
    assert (zeroed - right).tolist() == hidden
    assert max(hidden) > 0


def test_a_list_holds_the_best_items_that_may_be_shown(world: TinyWorld) -> None:
    halved = Halved(world)
    which = np.arange(len(halved.targets))
    scores = torch.rand(len(which), len(world.vocabulary), generator=torch.Generator().manual_seed(0))
    ranks, listed = halved.targets.ranked(which, scores.clone(), 6)
    assert ranks.tolist() == halved.targets.ranks(which, scores.clone()).tolist()
    for i in which:
        hidden = set(halved.targets.watched(np.array([i]))[0].tolist())
        allowed = [r for r in np.flatnonzero(halved.targets.candidate) if r not in hidden]
        assert listed[i].tolist() == sorted(allowed, key=lambda r: -float(scores[i, r]))[:6]
        if ranks[i] <= 6:
            assert listed[i][int(ranks[i]) - 1] == halved.targets.row[i]
