"""The split, the figures and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from intentrec_core.errors import DataError
from intentrec_core.evaluation import comparison as names
from intentrec_core.evaluation.metrics import lift_interval, mean_interval, quality
from intentrec_core.evaluation.model_ranks import Contender
from intentrec_core.evaluation.report import REFERENCES, compare, evaluate
from intentrec_core.evaluation.split import split_at, temporal_split
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import play_rows, plays_table
from intentrec_core.successors import Successors, SuccessorTable
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from tests.worlds.tiny_plays import cycling_plays, random_plays, row
from tests.worlds.tiny_world import TinyWorld


def test_the_split_is_one_moment_in_time() -> None:
    plays = random_plays(members=5, plays=100)
    split = temporal_split(plays, 0.7)
    assert split.train.num_rows + split.test.num_rows == 100
    assert max(split.train["ts_ms"].to_pylist()) < split.cut_ms == min(split.test["ts_ms"].to_pylist())


def test_plays_of_one_moment_stay_together_on_the_test_side() -> None:
    plays = plays_table([row(k, 1, 0.0 if k < 3 else 1.0) for k in range(10)])
    split = temporal_split(plays, 0.7)
    assert (split.train.num_rows, split.test.num_rows) == (3, 7)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_a_split_with_an_empty_side_is_refused(ratio: float) -> None:
    with pytest.raises(DataError):
        temporal_split(plays_table([row(k, 1, 0.0) for k in range(10)]), ratio)


def test_a_cut_beyond_all_plays_is_refused() -> None:
    with pytest.raises(DataError, match="choose another cut"):
        split_at(random_plays(members=2, plays=10), 0)


def test_figures_of_known_ranks() -> None:
    found = quality(np.array([1.0, 3.0, 10.0, 10.5, np.inf]))
    assert found.hr_at_10 == pytest.approx(3 / 5)
    assert found.ndcg_at_10 == pytest.approx((1 + 1 / 2 + 1 / np.log2(11)) / 5)
    assert found.mrr == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 10.5) / 5)
    assert quality(np.zeros(0)).num_plays == 0


def test_an_interval_is_as_wide_as_members_differ() -> None:
    random = np.random.default_rng(0)
    member = np.repeat(np.arange(400), 5)
    per_member = random.normal(1.0, 0.5, 400)
    found = mean_interval(per_member[member], member)
    expected = 1.96 * per_member.std() / np.sqrt(400)
    # 2,000 rounds estimate a 95 % half-width to about 5 %.
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.1)
    assert found.low < found.estimate < found.high
    assert found.estimate == pytest.approx(per_member.mean())


def test_a_lift_is_resampled_in_pairs() -> None:
    random = np.random.default_rng(0)
    reference = random.random(300)
    found = lift_interval(1.2 * reference, reference, np.arange(300))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))
    assert lift_interval(reference, np.zeros(300), np.arange(300)).estimate == np.inf


def test_a_lift_where_nothing_ever_scores_is_none() -> None:
    nothing = np.zeros(6)
    found = lift_interval(nothing, nothing, np.arange(6))
    assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)
    rarely = np.array([1.0, 0, 0, 0, 0, 0])
    found = lift_interval(rarely, rarely[::-1].copy(), np.arange(6))
    assert found.low == -1.0
    assert found.high == np.inf


def test_intervals_of_many_members_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, member = np.random.default_rng(1).random(5000), np.arange(5000) // 2
    whole = mean_interval(values, member)
    monkeypatch.setattr("intentrec_core.evaluation.metrics._MAX_DRAWS", 2500 * 7)
    assert mean_interval(values, member).low == pytest.approx(whole.low, rel=1e-9)


def test_intervals_repeat() -> None:
    values, member = np.random.default_rng(1).random(50), np.arange(50) // 5
    assert mean_interval(values, member) == mean_interval(values, member)


@pytest.fixture(scope="module")
def compared(world: TinyWorld) -> names.Comparison:
    plays = cycling_plays(members=8, plays=24, items=12)
    split = temporal_split(plays, 0.7)
    config = TrainConfig(epochs=10, batch_windows=8, learning_rate=3e-2)
    ours, without_intent = (
        train(
            split.train,
            world.features,
            world.table,
            config,
            model_config=ModelConfig(width=16, num_layers=1, intent_width=8, dropout=0.0, intent_stage=stage),
            device="cpu",
        ).model
        for stage in (True, False)
    )
    return compare(
        Contender(ours, world.features),
        plays,
        cut_ms=split.cut_ms,
        without_intent=Contender(without_intent, world.features),
        filter_watched=False,
    )


def test_the_report_holds_every_reference_on_the_same_plays(compared: names.Comparison) -> None:
    expected = [names.INTENTREC, names.NO_INTENT, *REFERENCES]
    assert [r.name for r in compared.rankers] == expected
    assert {r.quality.num_plays for r in compared.rankers} == {compared.num_plays}
    assert compared.row(names.INTENTREC).lift is None
    assert compared.num_new_members == 0
    with pytest.raises(KeyError):
        compared.row("nobody")


def test_what_follows_in_a_circle_is_seen_by_the_model_and_the_chain_but_not_by_popularity(
    compared: names.Comparison,
) -> None:
    lift = compared.row(names.POPULAR).lift
    assert lift is not None
    assert lift.low > 0.1
    assert compared.row(names.MARKOV).quality.ndcg_at_10 > 0.9
    assert compared.row(names.INTENTREC).quality.ndcg_at_10 > 0.6


def test_heads_are_beside_the_most_common_label(compared: names.Comparison) -> None:
    assert {h.name for h in compared.heads} == {"action", "length", "genre", "age"}
    for head in compared.heads:
        assert 0 <= head.most_common <= 1
        assert head.accuracy.low <= head.accuracy.estimate <= head.accuracy.high


def test_the_report_prints_and_is_plain_values(compared: names.Comparison) -> None:
    text = "\n".join(compared.lines())
    for name in (names.POPULAR, names.NO_INTENT, "intent genre", "not filtered", "NDCG@10"):
        assert name in text
    assert all(len(line) <= 140 for line in compared.lines())
    assert json.loads(json.dumps(compared.to_dict()))["num_plays"] == compared.num_plays


def test_successors_are_a_part_of_each_models_score(world: TinyWorld) -> None:
    plays = cycling_plays(members=8, plays=24, items=12)
    split = temporal_split(plays, 0.7)
    members = pack_members(world.layout, split.train)
    table = SuccessorTable.empty(31).counted(world.features.rows(members.events["item_hash"]), members.member)
    untrained, counted = (Contender(world.model(), world.features, one) for one in (None, Successors(table, 20.0)))

    def gain(ours: Contender, other: Contender) -> list[float]:
        found = compare(ours, plays, cut_ms=split.cut_ms, without_intent=other, filter_watched=False)
        return [found.row(name).quality.ndcg_at_10 for name in (names.INTENTREC, names.NO_INTENT)]

    alone, with_it = gain(untrained, counted)
    assert with_it > 2 * alone
    assert gain(counted, untrained) == [with_it, alone]


def test_references_know_no_more_than_the_plays_before_the_cut(world: TinyWorld) -> None:
    plays = random_plays(members=5, plays=160, items=25)
    cut_ms = plays["ts_ms"][50].as_py()
    found = compare(Contender(world.model(), world.features), plays, cut_ms=cut_ms)
    seen = set(split_at(plays, cut_ms).train["item_id"].to_pylist())
    assert found.num_candidates == len(seen) < 25
    later = [p for p in play_rows(plays) if p.ts_ms >= cut_ms]
    firsts = {p.user_id: p.event_id for p in reversed(list(play_rows(plays)))}
    predicted = [p for p in later if firsts[p.user_id] != p.event_id]
    assert found.num_plays == len(predicted)
    assert found.unseen == sum(p.item_id not in seen for p in predicted) > 0
    frozen, online = (found.row(name).quality for name in (names.MARKOV, names.MARKOV_ONLINE))
    assert frozen != online


def test_a_span_is_judged_on_its_own_plays_only(world: TinyWorld) -> None:
    plays, model = random_plays(members=5, plays=100), world.model()
    times = plays["ts_ms"].to_pylist()
    whole = evaluate(model, world.features, plays, from_ms=0)
    early = evaluate(model, world.features, plays, from_ms=0, until_ms=times[50])
    late = evaluate(model, world.features, plays, from_ms=times[50])
    assert whole.quality.num_plays == early.quality.num_plays + late.quality.num_plays
    hits = [q.quality.hr_at_10 * q.quality.num_plays for q in (early, late, whole)]
    assert hits[0] + hits[1] == pytest.approx(hits[2])
    assert set(whole.accuracy) == {head.name for head in world.domain.heads}


def test_a_test_without_histories_is_refused(world: TinyWorld) -> None:
    plays = plays_table([row(k, 1, float(k)) for k in range(10)])
    with pytest.raises(DataError, match="earlier cut"):
        compare(Contender(world.model(), world.features), plays, cut_ms=plays["ts_ms"][5].as_py())
