"""The gate: an equal or better candidate passes, a certainly worse one is refused with the reason."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.successors import Successors, SuccessorTable
from stream.trainer.gate import Contender, is_finite, judge
from stream.trainer.retrain_job import GateReason
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import WalkingWorld

HELD_OUT_MS = START_MS + 1_500 * 30_000


@pytest.fixture(scope="module")
def walk() -> WalkingWorld:
    return WalkingWorld()


@pytest.fixture(scope="module")
def members(walk: WalkingWorld) -> MemberPlays:
    return pack_members(EventLayout(walk.domain), walk.plays(2_000))


@pytest.fixture(scope="module")
def good(walk: WalkingWorld) -> Contender:
    return Contender(walk.trained(walk.plays(1_500)), walk.parts()[2])


def shuffled(good: Contender, *, only: str = "") -> Contender:
    """The same weights in another order, of the parameters whose name holds ``only``."""
    model: IntentRec = copy.deepcopy(good.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only in name:
                flat = parameter.view(-1)
                flat.copy_(flat[torch.randperm(len(flat), generator=generator)])
    return Contender(model, good.features)


def test_the_first_bundle_passes_when_it_is_finite(good: Contender, members: MemberPlays) -> None:
    result = judge(good, None, members, from_ms=HELD_OUT_MS, margin=0.02)
    assert result.passed
    assert result.running is None
    assert result.candidate.num_plays == 500
    assert result.candidate.hr_at_10 > 0.4


def test_an_equal_model_passes(good: Contender, members: MemberPlays) -> None:
    result = judge(good, good, members, from_ms=HELD_OUT_MS, margin=0.0)
    assert result.reason is GateReason.PASSED
    assert result.items is not None
    assert result.items.estimate == 0.0


def test_a_model_is_judged_with_its_successors(good: Contender, members: MemberPlays) -> None:
    """Of two models that know nothing, the one with successors is far above; without the weight they are equal."""
    before = members.events["ts_ms"] < HELD_OUT_MS
    rows = good.features.rows(members.events["item_hash"])[before]
    table = SuccessorTable.empty(good.model.num_rows).counted(rows, members.member[before])
    plain = shuffled(good)
    counted, kept = (dataclasses.replace(plain, successors=Successors(table, weight)) for weight in (20.0, 0.0))
    better = judge(counted, plain, members, from_ms=HELD_OUT_MS, margin=0.0)
    assert better.items is not None
    assert better.items.low > 0.5
    worse = judge(plain, counted, members, from_ms=HELD_OUT_MS, margin=0.0)
    assert worse.reason is GateReason.WORSE_ITEMS
    assert judge(kept, plain, members, from_ms=HELD_OUT_MS, margin=0.0).candidate == better.running


def test_shuffled_weights_are_refused(good: Contender, members: MemberPlays) -> None:
    result = judge(shuffled(good), good, members, from_ms=HELD_OUT_MS, margin=0.02)
    assert result.reason is GateReason.WORSE_ITEMS
    assert result.running is not None
    assert result.candidate.ndcg_at_10 < 0.7 * result.running.ndcg_at_10
    assert "NDCG@10" in result.detail


def test_a_model_that_lost_its_intents_is_refused(good: Contender, members: MemberPlays) -> None:
    candidate = shuffled(good, only="heads.heads")
    # Its items alone would pass, so that it is the intents it fails by.
    result = judge(candidate, good, members, from_ms=HELD_OUT_MS, margin=0.02)
    assert result.running_accuracy is not None
    assert result.candidate_accuracy < result.running_accuracy
    assert result.reason in (GateReason.WORSE_INTENTS, GateReason.WORSE_ITEMS)


def test_a_wide_margin_lets_a_worse_model_through(good: Contender, members: MemberPlays) -> None:
    assert judge(shuffled(good), good, members, from_ms=HELD_OUT_MS, margin=1.0).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(good: Contender, members: MemberPlays, value: float) -> None:
    candidate = shuffled(good, only="nothing")
    with torch.no_grad():
        candidate.model.item_bias[3] = value
    assert not is_finite(candidate.model)
    result = judge(candidate, good, members, from_ms=HELD_OUT_MS, margin=0.02)
    assert result.reason is GateReason.NOT_FINITE


def test_items_that_only_the_candidate_knows_count_against_the_running_bundle(
    walk: WalkingWorld, good: Contender, members: MemberPlays
) -> None:
    vocabulary = Vocabulary.build(f"item-{i}" for i in range(10))
    table = ItemTable(walk.domain, vocabulary, walk.catalogue)
    torch.manual_seed(0)
    small = IntentRec(good.model.config, walk.domain, table).eval()
    result = judge(
        good, Contender(small, FeatureBuilder(walk.domain, vocabulary, table)), members, from_ms=HELD_OUT_MS, margin=0.0
    )
    assert result.passed
    assert result.running is not None
    assert result.running.num_plays == result.candidate.num_plays == 500
    assert result.running.ndcg_at_10 < result.candidate.ndcg_at_10
