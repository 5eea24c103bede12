"""The weight of successors is the best on plays that were not learnt, and plays are counted once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intentrec_core.evaluation.metrics import quality
from intentrec_core.evaluation.model_ranks import ModelRanker
from intentrec_core.evaluation.targets import make_targets
from intentrec_core.history.history import EventLayout
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.windows import cut_windows
from intentrec_core.successors import Successors, SuccessorTable
from intentrec_core.training import weighing as subject
from intentrec_core.training.weighing import WEIGHTS, best_weight, weigh_successors
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import TINY_MODEL, WalkingWorld

WALK = WalkingWorld()
VOCABULARY, TABLE, FEATURES = WALK.parts()
#: The newest 600 of 1,600 plays.
FROM_MS = START_MS + 1_000 * 30_000


@pytest.fixture(scope="module")
def members() -> MemberPlays:
    return pack_members(EventLayout(WALK.domain), WALK.plays(1_600))


@pytest.fixture(scope="module")
def untrained() -> IntentRec:
    """A network that knows nothing, in a world whose members go from item to item: successors are all there is."""
    torch.manual_seed(0)
    return IntentRec(TINY_MODEL, WALK.domain, TABLE).eval()


def table_of(members: MemberPlays, *, until_ms: int) -> SuccessorTable:
    rows, known = FEATURES.rows(members.events["item_hash"]), members.events["ts_ms"] < until_ms
    return SuccessorTable.empty(len(VOCABULARY)).counted(rows[known], members.member[known])


def assert_same(one: SuccessorTable, other: SuccessorTable) -> None:
    np.testing.assert_array_equal(one.starts, other.starts)
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_allclose(one.counts, other.counts, rtol=1e-5)
    np.testing.assert_allclose(one.totals, other.totals, rtol=1e-5)


def ranks_with(network: IntentRec, members: MemberPlays, successors: Successors) -> NDArray[np.float64]:
    windows = cut_windows(members, from_ms=FROM_MS)
    rows = FEATURES.rows(members.events["item_hash"])
    targets = make_targets(members, windows, rows, np.ones(network.num_rows, dtype=np.bool_))
    return ModelRanker(FEATURES, members, windows).rank(network, targets, successors).ranks


def test_the_weight_is_the_best_of_all_on_the_later_plays(members: MemberPlays, untrained: IntentRec) -> None:
    chosen = weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS)
    assert_same(chosen.table, table_of(members, until_ms=FROM_MS))
    gain = {
        weight: quality(ranks_with(untrained, members, Successors(chosen.table, weight))).ndcg_at_10
        for weight in WEIGHTS
    }
    assert chosen.weight > 0
    assert gain[chosen.weight] == max(gain.values()) > 1.3 * gain[0.0]


def test_a_model_that_knows_more_than_what_follows_is_left_as_it_is(
    members: MemberPlays, untrained: IntentRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    misled = np.full((len(WEIGHTS), 3), 2.0)
    misled[1:] = 3.0
    monkeypatch.setattr(subject.ModelRanker, "ranks_by_weight", lambda *_: misled)
    assert weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS).weight == 0


def test_of_equally_good_weights_the_lowest_is_chosen() -> None:
    ranks = np.full((len(WEIGHTS), 4), 20.0)
    assert best_weight(ranks) == 0
    ranks[3:5, 0] = 1.0
    assert best_weight(ranks) == WEIGHTS[3]


def test_plays_that_were_counted_before_are_not_counted_again(members: MemberPlays, untrained: IntentRec) -> None:
    earlier_ms = START_MS + 700 * 30_000
    before = Successors(table_of(members, until_ms=earlier_ms), 0.25)
    found = weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS, before=before, counted_until_ms=earlier_ms)
    assert_same(found.table, table_of(members, until_ms=FROM_MS))
    assert found.weight > 0.25


def test_counts_of_plays_that_the_log_no_longer_has_are_kept(members: MemberPlays, untrained: IntentRec) -> None:
    earlier_ms = START_MS + 700 * 30_000
    before = Successors(table_of(members, until_ms=earlier_ms), 0.25)
    later = pack_members(EventLayout(WALK.domain), WALK.plays(900, first=700))
    found = weigh_successors(untrained, FEATURES, later, from_ms=FROM_MS, before=before, counted_until_ms=earlier_ms)
    assert found.table.totals.sum() > before.table.totals.sum()
    assert (found.table.totals >= before.table.totals).all()


@pytest.mark.parametrize("weight", [0.0, 1.5, None])
def test_too_few_plays_choose_nothing(
    members: MemberPlays, untrained: IntentRec, weight: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = None if weight is None else Successors(table_of(members, until_ms=FROM_MS), weight)
    monkeypatch.setattr(subject, "MIN_TARGETS", 601)
    found = weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS, before=before, counted_until_ms=FROM_MS)
    assert found.weight == (weight or 0.0)
    assert_same(found.table, table_of(members, until_ms=FROM_MS))


def test_of_a_large_catalogue_only_the_newest_plays_are_asked_for(
    members: MemberPlays, untrained: IntentRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()

    def noted(ranks_KN: NDArray[np.float64]) -> float:
        asked.append(ranks_KN.shape[1])
        return best_weight(ranks_KN)

    monkeypatch.setattr(subject, "best_weight", noted)
    monkeypatch.setattr(subject, "MIN_TARGETS", 100)
    weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS)
    monkeypatch.setattr(subject, "MAX_SCORES", 300 * untrained.num_rows)
    weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS)
    monkeypatch.setattr(subject, "MAX_SCORES", 1)
    found = weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS)
    assert asked == [600, 300, 100]
    assert_same(found.table, table_of(members, until_ms=FROM_MS))


def test_new_items_are_counted_too(members: MemberPlays, untrained: IntentRec) -> None:
    before = Successors(SuccessorTable.empty(len(VOCABULARY) - 5), 0.5)
    found = weigh_successors(untrained, FEATURES, members, from_ms=FROM_MS, before=before)
    assert_same(found.table, table_of(members, until_ms=FROM_MS))
