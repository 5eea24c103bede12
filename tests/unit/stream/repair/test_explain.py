"""An explanation is what the pipeline published: the same list and scores, each score the sum of its parts, each hidden item
named with its filter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.features.catalogue import Item
from intentrec_core.successors import Successors
from stream.pipeline.bundle_counts import BundleCounts
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.page_rows import POOL
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.retrieval import Retrieval
from stream.pipeline.row_rules import RowKind, RowRule
from stream.pipeline.shown_items import ShownItems
from stream.repair.explain import Explanation, explained
from stream.settings import Settings
from stream.wire.messages import IntentUpdate, Recommendation
from tests.worlds.bundle_world import PlayLog, count_table, make_pipeline, make_serving
from tests.worlds.item_log import ItemLog
from tests.worlds.pipeline_results import intents, lists, run, state
from tests.worlds.tiny_world import TinyWorld, random_successors

TABLE = count_table(
    [(f"item-{item}", 60.0 * n) for n, item in enumerate([3, 3, 5, 8, 13, 5, 5, 21, 7, 3, 29])], 9010.0, 1
)
TOLERANCE = 1e-4


def explanation(
    pipeline: Pipeline,
    user: str,
    *,
    counted: bool = False,
    catalogue: LiveCatalogue | None = None,
    settings: Settings | None = None,
) -> Explanation:
    serving = pipeline.serving
    items = ShownItems.of_bundle(serving) if catalogue is None else ShownItems.of_catalogue(serving, catalogue)
    counts = BundleCounts.of(serving, TABLE) if counted else None
    history = state(pipeline, user)
    member = MemberKey(0, user)
    return explained(settings or Settings(), serving, pipeline.layout, history, member, items, counts, [])


def expect_published(found: Explanation, listed: Recommendation, update: IntentUpdate) -> None:
    """The list, its scores and the intents are those of the messages; each score is the sum of its parts."""
    assert [item.item_id for item in found.items] == [item.item_id for item in listed.items]
    np.testing.assert_allclose([i.score for i in found.items], [i.score for i in listed.items], atol=TOLERANCE)
    for item in (*found.items, *found.hidden):
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=TOLERANCE)
    for intent in found.intents:
        assert intent.weight == pytest.approx(update.weights[intent.name], abs=TOLERANCE)
        for label, probability in update.intents[intent.name].items():
            assert intent.labels[label] == pytest.approx(probability, abs=2 * TOLERANCE)
    assert found.fallback == listed.fallback
    assert all(not item.hidden_by for item in found.items)
    assert all(item.hidden_by for item in found.hidden)
    assert sum(play.attention for play in found.plays) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("item_counts", [False, True])
@pytest.mark.parametrize("own_items", [False, True])
@pytest.mark.parametrize("successors", [None, random_successors(31)], ids=["", "successors"])
def test_an_explanation_is_what_was_published(
    world: TinyWorld, tmp_path: Path, item_counts: bool, own_items: bool, successors: Successors | None
) -> None:
    model = world.model(1, item_counts=item_counts, own_items=own_items)
    serving = make_serving(tmp_path, world, model, successors=successors)
    pipeline = make_pipeline(serving, counts=TABLE if item_counts else None)
    random, log, seen = np.random.default_rng(2), PlayLog(), set[str]()
    for number in range(40):
        record = log.play(f"member-{random.integers(5)}", int(random.integers(12)), 60.0 * number)
        result = run(pipeline, [record])
        (listed,), (update,) = lists(result), intents(result)
        found = explanation(pipeline, listed.user_id, counted=item_counts)
        expect_published(found, listed, update)
        assert found.plays[0].item_id == msgspec.json.decode(record.value)["item_id"]
        seen |= {part for item in found.items for part, share in item.parts.items() if share}
    wanted = (
        {"taste", "static", "intent genre"}
        | ({"counts"} if item_counts else set())
        | ({"own items"} if own_items else set())
        | ({"successors"} if successors else set())
    )
    assert wanted <= seen


def test_a_hidden_item_is_named_with_every_filter_that_hides_it(world: TinyWorld, tmp_path: Path) -> None:
    pipeline, log = make_pipeline(make_serving(tmp_path, world, world.model(1))), PlayLog()
    for number in range(6):
        result = run(pipeline, [log.play("u", number, 60.0 * number)])
    (listed,), (update,) = lists(result), intents(result)
    found = explanation(pipeline, "u")
    expect_published(found, listed, update)
    likeliest = max(update.intents["action"].items(), key=lambda label: label[1])[0]
    by_id = {item.item_id: item.attributes for item in world.items}
    watched = {f"item-{n}" for n in range(6)} if likeliest != "continue" else set()
    limit = msgspec.json.decode(log.records[-1].value)["context"]["max_maturity"]
    assert found.hidden
    for item in found.hidden:
        wanted = {"watched"} if item.item_id in watched else set()
        wanted |= set() if by_id[item.item_id]["available"] else {"available available"}
        wanted |= set() if by_id[item.item_id]["maturity"] <= limit else {"at_most maturity"}
        assert set(item.hidden_by) == wanted
    scores = [item.score for item in found.hidden]
    assert scores == sorted(scores, reverse=True)
    assert found.num_hidden["available available"] == sum(not of["available"] for of in by_id.values())
    assert found.num_hidden.get("watched", 0) == len(watched)


def test_an_item_that_left_the_catalogue_is_withdrawn_and_a_new_one_has_its_score(
    world: TinyWorld, tmp_path: Path
) -> None:
    items, catalogue = ItemLog(), LiveCatalogue()
    for item in world.items:
        items.put(item)
    items.withdraw("item-2")
    items.put(Item("new", "A new one", {**world.items[4].attributes, "available": True, "maturity": 0}))
    catalogue.apply(items.changes(0))
    pipeline, log = make_pipeline(make_serving(tmp_path, world, world.model(1)), catalogue=catalogue), PlayLog()
    result = run(pipeline, [log.play("u", 1, 0.0)])
    (listed,), (update,) = lists(result), intents(result)
    found = explanation(pipeline, "u", catalogue=catalogue)
    expect_published(found, listed, update)
    assert found.num_hidden["withdrawn"] == 1
    assert {item.item_id for item in found.hidden if "withdrawn" in item.hidden_by} <= {"item-2"}


def test_a_list_of_popular_items_has_the_parts_of_popularity(world: TinyWorld, tmp_path: Path) -> None:
    pipeline = make_pipeline(make_serving(tmp_path, world, world.model(1)), counts=TABLE)
    result = run(pipeline, [PlayLog().play("u", 99, 0.0)])  # an item that the bundle does not know
    (listed,), (update,) = lists(result), intents(result)
    assert listed.fallback == "popular"
    found = explanation(pipeline, "u", counted=True)
    expect_published(found, listed, update)
    assert found.plays[0].item_id == ""
    assert "popular" in found.items[0].parts


def test_an_explanation_looks_for_as_many_items_as_a_worker_with_rows(
    world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an approximate index, another number can find other items."""
    searched, search = list[int](), Retrieval.search

    def recorded(retrieval: Retrieval, *inputs: Any) -> Any:
        searched.append(retrieval._k)
        return search(retrieval, *inputs)

    monkeypatch.setattr(Retrieval, "search", recorded)
    rule = RowRule(kind=RowKind.POPULAR, title="Popular now")
    pipeline = make_pipeline(make_serving(tmp_path, world, world.model(1)), rows=(rule,))
    run(pipeline, [PlayLog().play("ann", 3, 60.0)])
    explanation(pipeline, "ann", settings=Settings(rows="movielens"))
    assert searched == [POOL, POOL]
