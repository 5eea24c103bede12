"""Figures beside the ranks: heads, lists, groups of plays, seeds, and comparisons in pairs."""

from __future__ import annotations

import numpy as np
import pytest

from intentrec_core.evaluation.heads import HeadOutcomes, head_quality
from intentrec_core.evaluation.lists import attribute_table, coverage, diversity, popularity_of
from intentrec_core.evaluation.metrics import gains, lift_interval, mean_of_seeds, p_value, rank_metrics
from intentrec_core.evaluation.model_ranks import ScoredByModel
from intentrec_core.evaluation.outcome import DIVERSITY, POPULARITY, interval_of, list_coverage, play_metrics
from intentrec_core.evaluation.protocols import temporal
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, rank
from intentrec_core.evaluation.task import EvaluationData
from intentrec_core.plays.members import pack_members
from tests.worlds.tiny_plays import random_plays
from tests.worlds.tiny_world import TinyWorld


def outcomes(predicted: list[int], observed: list[int | None], *, confidence: float, last: list[float]) -> HeadOutcomes:
    found = HeadOutcomes.empty(len(predicted), 3)
    found.predicted[:], found.confidence[:], found.repeated[:] = predicted, confidence, last
    for i, label in enumerate(observed):
        if label is not None:
            found.observed[i, label] = True
    return found


def test_skill_is_the_share_of_the_errors_of_last_time_that_are_avoided() -> None:
    found = outcomes([0, 1, 2, 2], [0, 1, 2, 0], confidence=0.75, last=[1.0, 0.0, 0.0, 1.0])
    quality = head_quality(found)
    assert quality.accuracy == 0.75
    assert quality.skill == pytest.approx(1 - 0.25 / 0.5)
    assert quality.ece == pytest.approx(0.0)


def test_confidence_that_is_not_accuracy_is_a_calibration_error() -> None:
    found = outcomes([0, 0, 0, 0], [0, 1, 1, 1], confidence=0.95, last=[0.0] * 4)
    assert head_quality(found).ece == pytest.approx(0.7)


def test_a_label_that_never_occurs_has_no_part_in_the_f1() -> None:
    found = outcomes([0, 1, 0, 1], [0, 1, 0, 1], confidence=1.0, last=[0.0] * 4)
    assert head_quality(found).macro_f1 == 1.0


def test_plays_without_a_known_label_count_nowhere() -> None:
    some = outcomes([0, 1, 2], [0, None, 1], confidence=0.5, last=[1.0, np.nan, 0.0])
    known = outcomes([0, 2], [0, 1], confidence=0.5, last=[1.0, 0.0])
    assert head_quality(some) == head_quality(known)
    assert np.isnan(head_quality(outcomes([0], [None], confidence=0.5, last=[np.nan])).accuracy)


def test_a_models_heads_are_held_to_the_label_of_the_play_before(world: TinyWorld) -> None:
    data = data_of(world)
    task = temporal(data).test
    ranker = ScoredByModel(world.model(), world.features)
    rank(ranker, task)
    genre = ranker.heads["genre"]
    labels = world.table.multi["genre"]
    for i, play in enumerate(task.targets.play.tolist()):
        now, last = (labels[data.row[p]] > 0 for p in (play, play - 1))
        assert genre.observed[i].tolist() == now.tolist()
        expected = (now & last).sum() / last.sum() if now.any() and last.any() else np.nan
        np.testing.assert_allclose(genre.repeated[i], expected)
    assert 0 < np.nanmean(genre.repeated) < 1
    assert not task.targets.lifted.any(), "the task, and so every ranker after this one, hides what it did"
    assert ((genre.confidence > 0) & (genre.confidence <= 1)).all()


def test_lists_of_one_item_and_empty_lists_are_no_lists_to_compare() -> None:
    attributes = np.array([[9, 9], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    found = diversity(np.array([[1, 2], [1, 3], [1, 0], [0, 0]]), attributes)
    np.testing.assert_allclose(found, [1.0, 0.0, np.nan, np.nan], atol=1e-9)
    found = popularity_of(np.array([[1, 2], [3, 0], [0, 0]]), np.array([99.0, 1.0, 3.0, 8.0]))
    np.testing.assert_allclose(found, [2.0, 8.0, np.nan])
    assert coverage(np.array([[1, 2], [1, 0]]), np.array([False, True, True, True])) == pytest.approx(2 / 3)


def test_attributes_are_what_belongs_to_an_item_alone(world: TinyWorld) -> None:
    table = attribute_table(world.table)
    assert table.shape[0] == len(world.vocabulary)
    assert table[0].sum() == 0
    assert set(np.unique(table).tolist()) == {0.0, 1.0}


def data_of(world: TinyWorld) -> EvaluationData:
    packed = pack_members(world.layout, random_plays(members=20, plays=260))
    return EvaluationData.of(packed, world.features, np.arange(len(world.vocabulary)) > 0)


def test_groups_of_plays_divide_all_plays(world: TinyWorld) -> None:
    task = temporal(data_of(world)).test
    ranked = rank(MarkovRanker(), task)
    found = play_metrics(ranked, task, attribute_table(world.table))
    known, new = found["ndcg@10, known members"], found["ndcg@10, new members"]
    assert (np.isnan(known) ^ np.isnan(new)).all()
    np.testing.assert_allclose(np.nansum([known, new], axis=0), gains(ranked.ranks))
    assert (~np.isnan(found["hr@10, new items"])).tolist() == task.is_new_item().tolist()
    assert {"hr@5", "ndcg@20", "mrr", DIVERSITY, POPULARITY} <= set(found)
    assert 0 < list_coverage(ranked, task) <= 1
    assert interval_of(np.full(len(task), np.nan), task.targets.member) is None


def test_a_popularity_list_is_more_popular_than_what_is_played(world: TinyWorld) -> None:
    task = temporal(data_of(world)).test
    found = play_metrics(rank(PopularityRanker(np.inf), task), task, np.zeros((len(world.vocabulary), 0)))
    assert found[POPULARITY].mean() > 1
    assert DIVERSITY not in found


def test_seeds_are_averaged_before_members_are_drawn() -> None:
    """Three seeds of the same 50 members are no 150 members: the interval does not shrink by √3."""
    random = np.random.default_rng(0)
    member = np.arange(50)
    of_member = random.random(50)
    averaged = mean_of_seeds([of_member + 0.01 * random.standard_normal(50) for _ in range(3)])
    one, three = (interval_of(values, member) for values in (of_member, averaged))
    assert one is not None
    assert three is not None
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_difference_that_is_noise_has_a_high_p_and_a_steady_one_a_low_p() -> None:
    random = np.random.default_rng(0)
    base, member = random.random(400), np.arange(400) // 4
    assert p_value(base + 0.02, base, member) <= 0.001
    noise = base + 0.3 * random.standard_normal(400)
    noise -= noise.mean() - base.mean()
    assert p_value(noise, base, member) > 0.5
    assert p_value(base, base, member) == 1.0


def test_members_are_drawn_for_both_rankers_together() -> None:
    """A ranker that is better by a little at every member is certainly better, however much members differ."""
    random = np.random.default_rng(0)
    member = np.arange(60)
    base = random.random(60) * 10
    assert p_value(1.01 * base, base, member) <= 0.001
    assert lift_interval(1.01 * base, base, member).low > 0


def test_ranking_metrics_of_known_ranks() -> None:
    found = rank_metrics(np.array([1.0, 6.0, 20.5, np.inf]))
    assert found["hr@5"].tolist() == [1, 0, 0, 0]
    assert found["hr@10"].tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(found["ndcg@20"], [1, 1 / np.log2(7), 0, 0])
    np.testing.assert_allclose(found["mrr"], [1, 1 / 6, 1 / 20.5, 0])
