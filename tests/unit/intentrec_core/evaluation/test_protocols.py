"""What each protocol asks for, and what may be known at each target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from intentrec_core.baselines.markov import MarkovSettings
from intentrec_core.errors import DataError
from intentrec_core.evaluation.protocols import Protocol, leave_one_out, streaming, temporal
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, Ranker, ranks_alone
from intentrec_core.evaluation.task import EvaluationData, Task
from intentrec_core.evaluation.tuning import Axis, first_order, last_plays, tune
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import plays_table
from tests.worlds.tiny_plays import cycling_plays, random_plays, row
from tests.worlds.tiny_world import TinyWorld

PROTOCOLS: dict[str, Callable[[EvaluationData], Protocol]] = {
    "temporal": temporal,
    "time unknown": lambda data: temporal(data, knows_time=False),
    "leave-one-out": leave_one_out,
    "streaming": lambda data: streaming(data, refresh_plays=25),
    "streaming, time unknown": lambda data: streaming(data, refresh_plays=25, knows_time=False),
}
#: Rankers, and how many plays each may know at a target of a task: at most one of these numbers.
RANKERS: dict[str, tuple[Ranker, Callable[[Task], np.ndarray]]] = {
    "popular": (PopularityRanker(900.0), lambda task: task.live),
    "ever": (PopularityRanker(math.inf), lambda task: task.countable),
    "frozen": (MarkovRanker(MarkovSettings(shrinkage=1.0, backoff=0.0)), lambda task: task.learned),
    "online": (MarkovRanker(MarkovSettings(shrinkage=1.0, spread=3), online=True), lambda task: task.countable),
}


def data_of(world: TinyWorld, *, members: int = 6, plays: int = 240, seed: int = 0) -> EvaluationData:
    packed = pack_members(world.layout, random_plays(members=members, plays=plays, seed=seed))
    return EvaluationData.of(packed, world.features, np.arange(len(world.vocabulary)) > 0)


def asked(task: Task) -> set[int]:
    return set(task.targets.play.tolist())


def test_a_temporal_validation_lies_between_what_is_learned_and_the_test(world: TinyWorld) -> None:
    data = data_of(world)
    found = temporal(data, test_ratio=0.2, validation_ratio=0.1)
    validation, test = (data.place[t.targets.play] for t in (found.validation, found.test))
    assert (found.validation.learned <= validation.min()).all()
    assert validation.max() < test.min()
    assert set(found.test.learned.tolist()) == {int(found.test.learned[0])}
    assert validation.max() < found.test.learned[0] <= test.min()
    firsts = set(data.members.bounds[:-1].tolist())
    assert asked(found.test) == {i for i in range(len(data.place)) if data.place[i] >= found.test.learned[0]} - firsts


def test_plays_of_one_moment_are_never_on_both_sides(world: TinyWorld) -> None:
    rows = [row(k % 3, k % 7, 0.0 if k < 4 else 60.0 if k < 30 else 120.0, event=str(k)) for k in range(40)]
    data = EvaluationData.of(pack_members(world.layout, plays_table(rows)), world.features, np.ones(35, dtype=np.bool_))
    found = temporal(data, test_ratio=0.2, validation_ratio=0.2)
    assert set(found.test.learned.tolist()) == {30}
    assert set(found.validation.learned.tolist()) == {4}


def test_leave_one_out_asks_for_the_last_play_in_the_order_given(world: TinyWorld) -> None:
    """Five plays of one second: the last of the file is the last, whatever its item."""
    rows = [row(1, item, 60.0, event=str(item)) for item in (5, 3, 9, 1, 7)] + [row(2, 4, 0.0), row(2, 8, 1.0)]
    table = plays_table(sorted(rows, key=lambda play: play.ts_ms))
    data = EvaluationData.of(pack_members(world.layout, table), world.features, np.ones(35, dtype=np.bool_))
    found = leave_one_out(data)
    assert found.test.targets.row.tolist() == [world.vocabulary.row("item-7")]
    assert found.validation.targets.row.tolist() == [world.vocabulary.row("item-1")]
    held_back = {world.vocabulary.row("item-7"), world.vocabulary.row("item-1")}
    assert set(data.row[found.test.learnable].tolist()).isdisjoint(held_back)
    assert found.test.learnable.sum() == 5


def test_leave_one_out_without_histories_is_refused(world: TinyWorld) -> None:
    data = EvaluationData.of(
        pack_members(world.layout, plays_table([row(1, 1, 0.0), row(1, 2, 1.0)])),
        world.features,
        np.ones(35, dtype=np.bool_),
    )
    with pytest.raises(DataError, match="three plays"):
        leave_one_out(data)
    with pytest.raises(DataError, match="more plays"):
        temporal(data)


def test_in_a_stream_every_play_is_asked_before_it_is_learned(world: TinyWorld) -> None:
    data = data_of(world)
    test = streaming(data, refresh_plays=25).test
    place = data.place[test.targets.play]
    assert (test.learned <= place).all()
    assert (place - test.learned < 25).all()
    start = int(test.learned.min())
    assert set(((test.learned - start) % 25).tolist()) == {0}
    assert len(set(test.learned.tolist())) > 2


@pytest.mark.parametrize("ranker", RANKERS.values(), ids=RANKERS)
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_no_ranker_knows_what_it_is_asked(
    world: TinyWorld,
    protocol: Callable[[EvaluationData], Protocol],
    ranker: tuple[Ranker, Callable[[Task], np.ndarray]],
) -> None:
    """The scores of a target stay the same when every play that this ranker may not know there has another item."""
    ranker, known_to = ranker
    data = data_of(world)
    test = protocol(data).test
    before = scores_of(ranker, test)
    random = np.random.default_rng(1)
    for target in random.choice(len(test), 5, replace=False).tolist():
        known = test.learnable & (data.place < known_to(test)[target])
        play = int(test.targets.play[target])
        known |= (data.members.member == data.members.member[play]) & (np.arange(len(data.place)) < play)
        other = dataclasses.replace(data, row=np.where(known, data.row, 1 + (data.row + 7) % 30))
        targets = dataclasses.replace(test.targets, all_rows=other.row)
        changed = dataclasses.replace(test, data=other, targets=targets)
        assert not known[play]
        np.testing.assert_array_equal(scores_of(ranker, changed)[target], before[target])


def scores_of(ranker: Ranker, task: Task) -> np.ndarray:
    found = np.full((len(task), len(task.data.universe)), np.nan)
    for which, scores in ranker.scores(task):
        found[which] = scores.numpy()
    return found


def test_a_list_made_at_the_play_before_counts_less_than_one_made_at_the_target(world: TinyWorld) -> None:
    data = data_of(world)
    known, unknown = (temporal(data, knows_time=knows).test for knows in (True, False))
    assert known.targets.play.tolist() == unknown.targets.play.tolist()
    assert (unknown.live <= known.live).all()
    assert (unknown.live < known.live).any()
    assert (unknown.now_s <= known.now_s).all()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_only_leave_one_out_counts_more_than_had_happened(
    world: TinyWorld, protocol: Callable[[EvaluationData], Protocol]
) -> None:
    test = protocol(data_of(world)).test
    if test.learnable.all():
        np.testing.assert_array_equal(test.countable, test.live)
    else:
        np.testing.assert_array_equal(test.countable, test.learned)
        assert (test.live < test.learned).all()


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_new_members_and_new_items_are_those_of_whom_nothing_was_learned(
    world: TinyWorld, protocol: Callable[[EvaluationData], Protocol]
) -> None:
    test = protocol(data_of(world, members=40, plays=200, seed=3)).test
    for i in range(len(test)):
        learned = test.learnable & (test.data.place < test.learned[i])
        assert test.is_new_member()[i] == (test.targets.member[i] not in test.data.members.member[learned])
        assert test.is_new_item()[i] == (test.targets.row[i] not in test.data.row[learned])


def circles(world: TinyWorld) -> Task:
    packed = pack_members(world.layout, cycling_plays(members=8, plays=40, items=12))
    data = EvaluationData.of(packed, world.features, np.arange(len(world.vocabulary)) > 0, hides_history=False)
    return temporal(data).validation


def test_the_best_point_is_the_best_on_validation_and_stands_beside_the_mean(world: TinyWorld) -> None:
    validation = circles(world)
    tried: dict[tuple[float, float], float] = {}

    def make(point: Mapping[str, float]) -> Ranker:
        ranker = MarkovRanker(MarkovSettings(lags=1, shrinkage=point["shrinkage"], backoff=point["backoff"]))
        ranks = ranks_alone(ranker, validation)
        tried[point["shrinkage"], point["backoff"]] = float(np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0).mean())
        return ranker

    axes = (Axis("shrinkage", (0.1, 1e6), 1e6, (1e6,)), Axis("backoff", (0.1, 1.0, 10.0), 1.0))
    found = tune(make, axes, validation)
    assert found.value == max(tried.values()) > found.mean == pytest.approx(np.mean(list(tried.values())))
    assert found.spread == pytest.approx(np.std(list(tried.values())))
    assert found.best.settings.shrinkage == 0.1
    assert found.num_points == len(tried)
    assert "shrinkage" in found.at_edge
    assert f"best of {len(tried)}" in found.line()
    assert "at the edge: shrinkage" in found.line()
    with pytest.raises(ValueError, match="no setting"):
        tune(make, (), validation)


def test_a_value_beyond_which_there_is_none_is_no_edge() -> None:
    axis = Axis("decay", (0.5, 0.8, 1.0), 0.8, ends=(1.0,))
    assert [axis.is_edge(value) for value in axis.values] == [True, False, False]


def test_chains_are_chosen_among_those_of_their_kind(world: TinyWorld) -> None:
    validation = circles(world)
    first, last = first_order(validation, online=False), last_plays(validation, online=True)
    assert (first.best.settings.lags, first.best.online) == (1, False)
    assert (last.best.settings.lags, last.best.online) == (5, True)
    assert first.value > 0.8
    assert last.value > 0.8
