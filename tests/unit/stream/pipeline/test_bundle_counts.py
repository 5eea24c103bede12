"""Counts of plays in the lists of a pipeline: exact scores, one table a micro-batch, and what is popular now."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import UNSET
from numpy.typing import NDArray

from intentrec_core.engine.item_counts import ItemCounts
from intentrec_core.engine.reference import recompute
from intentrec_core.features.catalogue import Item
from intentrec_core.successors import Successors
from stream.ops.metrics import Metrics
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.popular import PopularTable
from stream.wire.messages import Recommendation
from tests.worlds.bundle_world import PlayLog, count_table, make_pipeline, make_serving
from tests.worlds.item_log import ItemLog
from tests.worlds.naive_score import (
    naive_offsets,
    naive_own_offsets,
    naive_popularity,
    naive_scores,
    naive_successor_offsets,
)
from tests.worlds.networks import network_of
from tests.worlds.pipeline_results import intents, lists, run, state
from tests.worlds.tiny_world import START_MS, TinyWorld, random_successors

#: As for scores elsewhere: sums of 20 products of values that agree within 1e-4.
TOLERANCE = 1e-3
#: On the grid of the model's refresh, in seconds after the world began.
AT_S = 10.0 + 90.0 * 100
COUNTED = [(item, 60.0 * number) for number, item in enumerate([3, 3, 5, 8, 13, 5, 5, 21, 7, 3, 29, 29, 29, 29, 1, 2])]
K = 10
SUCCESSORS = random_successors(31)


def table(sequence: int = 1, plays: list[tuple[int, float]] | None = None) -> ItemCounts:
    return count_table([(f"item-{item}", at) for item, at in plays or COUNTED], AT_S, sequence)


def true_scores(world: TinyWorld, pipeline: Pipeline, user: str, plays: list[tuple[int, float]]) -> NDArray[np.float64]:
    model = network_of(pipeline.serving.engine)
    context = bytes(state(pipeline, user).events)
    encoded = recompute(model, world.features, [context])
    given = [(item + 1, START_MS / 1000 + at_s) for item, at_s in plays]
    scores = naive_scores(model, world.table, encoded) + naive_offsets(model, encoded, given, START_MS / 1000 + AT_S)
    if model.own_items is not None:
        scores += naive_own_offsets(model, world.features, context, encoded)
    if pipeline.serving.successors is not None:
        moment_s, refresh_s = START_MS / 1000 + AT_S, model.config.count_refresh_s
        popularity = naive_popularity(given, model.num_rows, moment_s, refresh_s)
        scores += naive_successor_offsets(SUCCESSORS, world.features, context, popularity)
    return scores


def scores_of(listed: Recommendation, world: TinyWorld) -> tuple[list[int], list[float]]:
    return [world.vocabulary.row(item.item_id) for item in listed.items], [item.score for item in listed.items]


@pytest.mark.parametrize("own_items", [False, True])
@pytest.mark.parametrize("successors", [None, SUCCESSORS], ids=["", "successors"])
def test_lists_are_the_exact_best_by_vectors_and_counts(
    world: TinyWorld, tmp_path: Path, own_items: bool, successors: Successors | None
) -> None:
    model = world.model(1, item_counts=True, own_items=own_items)
    pipeline = make_pipeline(make_serving(tmp_path, world, model, successors=successors), counts=table())
    without = make_pipeline(make_serving(tmp_path / "b", world, world.model(1, item_counts=True)))
    num_moved, random, log = 0, np.random.default_rng(2), PlayLog()
    for number in range(60):
        record = log.play(f"member-{random.integers(5)}", int(random.integers(12)), 60.0 * number)
        result = run(pipeline, [record])
        (listed,), (update,) = lists(result), intents(result)
        wanted = true_scores(world, pipeline, listed.user_id, COUNTED)
        wanted[
            [not world.items[row - 1].attributes["available"] if row else True for row in range(len(wanted))]
        ] = -np.inf
        if max(update.intents["action"].items(), key=lambda one: one[1])[0] != "continue":
            watched = [r.value for r in log.records if r.key == listed.user_id.encode()]
            wanted[[world.vocabulary.row(msgspec.json.decode(play)["item_id"]) for play in watched[-24:]]] = -np.inf
        rows, scores = scores_of(listed, world)
        np.testing.assert_allclose(scores, wanted[rows], atol=TOLERANCE)
        np.testing.assert_allclose(scores, np.sort(wanted)[::-1][: len(scores)], atol=TOLERANCE)
        assert listed.counts_sequence == 1
        (other,) = lists(run(without, [record]))
        assert other.counts_sequence is UNSET
        num_moved += scores_of(other, world)[0] != rows
    assert num_moved > 30, "counts change lists, or the test shows nothing"


def test_a_micro_batch_is_answered_from_the_table_that_was_newest_when_it_was_encoded(
    world: TinyWorld, tmp_path: Path
) -> None:
    pipeline = make_pipeline(make_serving(tmp_path, world, world.model(1, item_counts=True)), counts=table(7))
    log = PlayLog()
    encoded = pipeline.encode({0: [log.play("u", 1, 0.0), log.play("v", 2, 1.0)]})
    newer = table(8, [(4, 0.0)] * 50)
    pipeline.change_counts(newer, pipeline.look_up_counts(newer))
    after = pipeline.encode({0: [log.play("w", 3, 2.0)]})
    (first,), (second,) = pipeline.respond(encoded), pipeline.respond(after)
    assert [listed.counts_sequence for listed in lists(first)] == [7, 7]
    (listed,) = lists(second)
    assert listed.counts_sequence == 8
    rows, scores = scores_of(listed, world)
    np.testing.assert_allclose(scores, true_scores(world, pipeline, "w", [(4, 0.0)] * 50)[rows], atol=TOLERANCE)
    for listed in lists(first):
        rows, scores = scores_of(listed, world)
        np.testing.assert_allclose(scores, true_scores(world, pipeline, listed.user_id, COUNTED)[rows], atol=TOLERANCE)


def test_a_bundle_that_comes_later_has_the_newest_table(world: TinyWorld, tmp_path: Path) -> None:
    first, second = (make_serving(tmp_path / str(seed), world, world.model(seed, item_counts=True)) for seed in (1, 2))
    pipeline, log = make_pipeline(first, counts=table(7)), PlayLog()
    newer = table(8)
    pipeline.change_counts(newer, pipeline.look_up_counts(newer))
    pipeline.look_up(second)
    newest = table(9)
    looked_up = pipeline.look_up_counts(newest)  # of the first bundle alone
    pipeline.start_migration(second)
    pipeline.change_counts(newest, looked_up)
    pipeline.swap(second)
    (listed,) = lists(run(pipeline, [log.play("u", 1, 0.0)]))
    assert (listed.bundle, listed.counts_sequence) == (second.version, 9)
    rows, scores = scores_of(listed, world)
    np.testing.assert_allclose(scores, true_scores(world, pipeline, "u", COUNTED)[rows], atol=TOLERANCE)


def test_an_item_that_is_new_to_the_bundle_is_listed_by_its_counts(world: TinyWorld, tmp_path: Path) -> None:
    model = world.model(1, item_counts=True)
    assert model.count_gate is not None
    model.count_gate.bias.data[:4] = 3.0
    items, catalogue = ItemLog(), LiveCatalogue()
    for number in range(world.num_items):
        items.put(world.item(number))
    items.put(Item("new", "New", {**world.item(2).attributes, "available": True, "maturity": 0}))
    catalogue.apply(items.changes(0))
    plays = [("new", 60.0 * number) for number in range(80)]
    serving, log = make_serving(tmp_path, world, model), PlayLog()
    pipeline = make_pipeline(serving, catalogue=catalogue)
    (before,) = lists(run(pipeline, [log.play("u", 1, 0.0)]))
    assert before.items[0].item_id != "new"
    newer = count_table(plays, AT_S, 5)
    pipeline.change_counts(newer, pipeline.look_up_counts(newer))
    (after,) = lists(run(pipeline, [log.play("u", 2, 60.0)]))
    assert after.items[0].item_id == "new"
    (fallback,) = lists(run(pipeline, [log.play("newcomer", "unknown", 61.0)]))
    assert (fallback.fallback, fallback.items[0].item_id, fallback.counts_sequence) == ("popular", "new", 5)


def test_popularity_beside_successors_is_of_the_plays_of_the_bundles_items_and_no_part_of_the_published_query(
    world: TinyWorld, tmp_path: Path
) -> None:
    """An item that is new to the bundle gets its own plays over those; it follows nothing yet."""
    model, items, catalogue = world.model(1, item_counts=True), ItemLog(), LiveCatalogue()
    for number in range(world.num_items):
        items.put(world.item(number))
    items.put(Item("new", "New", {**world.item(2).attributes, "available": True, "maturity": 0}))
    catalogue.apply(items.changes(0))
    plays = [("new", 0.0)] * 3 + [(f"item-{item}", 0.0) for item in (4, 4, 5, 8, 9)]
    found = []
    for successors in (None, SUCCESSORS):
        serving = make_serving(tmp_path / str(successors is None), world, model, successors=successors)
        pipeline = make_pipeline(
            serving,
            catalogue=catalogue,
            counts=count_table(plays, AT_S),
            num_recommendations=20,
            publish_embedding=True,
        )
        found.extend(lists(run(pipeline, [PlayLog().play("u", 1, 60.0)])))
    without, with_them = ({item.item_id: item.score for item in listed.items} for listed in found)
    assert found[0].query == found[1].query
    # All plays are of one moment: a share of them is the same, however much they have decayed since.
    assert with_them["new"] - without["new"] == pytest.approx(0.7 * np.log(1 + 100 * 3 * 3 / 5), abs=TOLERANCE)


def test_popular_lists_and_the_judged_reference_are_of_the_table(world: TinyWorld, tmp_path: Path) -> None:
    """Whatever this worker's own partitions have played, and for a model without counts too."""
    popularity = [0.0] * len(world.vocabulary)
    metrics = Metrics()
    serving = make_serving(tmp_path, world, world.model(1), popularity=popularity)
    pipeline = make_pipeline(serving, metrics, counts=table(3, [(9, 0.0)] * 9 + [(11, 0.0)] * 12))
    log = PlayLog()
    (listed,) = lists(run(pipeline, [log.play("newcomer", "unknown", 0.0)]))
    assert (listed.fallback, listed.counts_sequence) == ("popular", 3)
    assert [item.item_id for item in listed.items[:2]] == ["item-11", "item-9"]
    (known,) = lists(run(pipeline, [log.play("member", 1, 1.0)]))
    assert (known.fallback, known.counts_sequence) == ("none", UNSET)
    hits = []
    for item in (11, 20):
        before = metrics.registry.get_sample_value("intentrec_judged_popular_hits_total", {"bundle": serving.version})
        run(pipeline, [log.play("member", item, 2.0 + item)])
        after = metrics.registry.get_sample_value("intentrec_judged_popular_hits_total", {"bundle": serving.version})
        assert before is not None
        assert after is not None
        hits.append(after - before)
    assert hits == [1.0, 0.0]


def test_a_table_ranks_rows_by_their_plays() -> None:
    plays = np.array([0, *np.random.default_rng(1).permutation(40)])
    of_table = PopularTable(plays.astype(np.float64))
    assert len(of_table) == 1000 * plays.sum()
    counts, order = of_table.counts_and_order()
    assert (counts[order][:-1] >= counts[order][1:]).all()
    assert not counts.flags.writeable
    assert not order.flags.writeable
