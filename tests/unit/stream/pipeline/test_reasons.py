"""Reasons are what the parts of a published score say, computed here item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from intentrec_core.engine.item_counts import ItemCounts
from intentrec_core.features.catalogue import Item
from intentrec_core.history.history import hash64
from stream.bundles.serving import Serving
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.wire.catalogue_record import ItemChanges
from stream.wire.messages import Reason, Recommendation
from stream.wire.sizes import OVERHEAD_BYTES, TopicLimits
from tests.worlds.bundle_world import PlayLog, Record, count_table, make_pipeline, make_serving
from tests.worlds.pipeline_results import lists, run
from tests.worlds.tiny_world import TinyWorld

DAY_S = 86_400.0


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "counts"])
def serving(world: TinyWorld, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    model = world.model(3, item_counts=request.param)
    return make_serving(tmp_path_factory.mktemp("bundles"), world, model)


def plays(serving: Serving, num: int = 40) -> list[Record]:
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    log = PlayLog()
    for i in range(num):
        log.play(("ann", "ben", "cho")[i % 3], i * i % 29, 100.0 * i)
    return log.records


def counts() -> ItemCounts:
    """Items 0 to 9 were first played long ago, 10 to 14 within a week, all others never."""
    old = [(f"item-{i}", 60.0 * i) for i in range(10)]
    new = [(f"item-{i}", 20 * DAY_S + i) for i in range(10, 15)]
    return count_table(old + new, at_s=20 * DAY_S + 60)


def naive_reason(
    serving: Serving, answer: Recommendation, place: int, held: list[int], table: ItemCounts | None
) -> Reason:
    """``held``: the rows of the member's plays, oldest first."""
    item_ids, hashes = serving.vocabulary.item_ids, serving.vocabulary.hashes
    row = item_ids.index(answer.items[place].item_id)
    if row in held:
        return Reason("continue")
    columns = np.zeros((len(hashes), 5), np.float32) if table is None else table.columns_of(hashes)
    if columns[row].any() and np.expm1(columns[row, -1]) <= 7:
        return Reason("new")
    if answer.fallback == "popular":
        return Reason("popular")
    assert isinstance(answer.query, bytes)
    query = np.frombuffer(answer.query, "<f4")
    vectors = serving.index.vectors_of(np.arange(1, len(hashes)))
    width, own = serving.engine.weights.config.width, vectors[row - 1]
    lifts = (own - vectors.mean(axis=0)) * query[: len(own)]
    popular = lifts[width]
    if len(query) > len(own):
        popular += ((columns[row] - columns[1:].mean(axis=0)) * query[len(own) :]).sum()
    parts = {"because_of": lifts[:width].sum(), "popular": popular}
    at = width + 1
    for m in serving.label_heads:
        head = serving.domain.heads[m]
        labels = slice(at, at := at + head.num_labels)
        if own[labels].any():
            adds = {n: own[labels][n] * query[labels][n] for n in range(head.num_labels) if own[labels][n]}
            parts[f"{head.name} {head.label_names[max(adds, key=lambda n: adds[n])]}"] = lifts[labels].sum()
    largest = max(parts, key=lambda name: parts[name])
    if largest == "because_of":
        known = {other for other in held if other}
        unit = vectors[:, :width] / np.linalg.norm(vectors[:, :width], axis=1)[:, None]
        nearest = max(known, key=lambda other: unit[other - 1] @ unit[row - 1])
        return Reason("because_of", item_id=item_ids[nearest], title=serving.items.titles[nearest])
    return Reason(largest) if largest == "popular" else Reason("intent", *largest.split(" ", 1))


@pytest.mark.parametrize("table", [None, counts()], ids=["no table", "table"])
def test_reasons_are_what_the_parts_of_the_scores_say(serving: Serving, table: ItemCounts | None) -> None:
    """At most 24 items are watched, so all of them are among the newest plays."""
    records = plays(serving)
    pipeline = make_pipeline(serving, counts=table, publish_reasons=True, publish_embedding=True)
    held, told = dict[str, list[int]](), Counter[str]()
    for record, answer in zip(records, lists(run(pipeline, records)), strict=True):
        play = msgspec.json.decode(record.value or b"")
        held.setdefault(answer.user_id, []).append(serving.vocabulary.item_ids.index(play["item_id"]))
        for place, item in enumerate(answer.items):
            assert item.reason == naive_reason(serving, answer, place, held[answer.user_id][-24:], table)
            told[item.reason.because] += 1
    assert told.keys() >= {"intent", "because_of", "popular"}
    assert ("new" in told) == (table is not None)


def test_an_item_that_the_member_holds_is_continued(world: TinyWorld, tmp_path: Path) -> None:
    """This model predicts that members continue, and the domain shows what they have watched then."""
    serving = make_serving(tmp_path, world, world.model(8))
    records = plays(serving)
    answers = lists(run(make_pipeline(serving, publish_reasons=True, num_recommendations=30), records))
    held, continued = dict[str, set[str]](), 0
    for record, answer in zip(records, answers, strict=True):
        held.setdefault(answer.user_id, set()).add(msgspec.json.decode(record.value or b"")["item_id"])
        own = {item.item_id for item in answer.items if item.reason == Reason("continue")}
        assert own == held[answer.user_id] & {item.item_id for item in answer.items}
        continued += len(own)
    assert continued


def test_a_newcomer_gets_what_is_popular_and_is_told_so(serving: Serving) -> None:
    log = PlayLog()
    log.play("dan", "an item of no bundle", 100.0)
    (answer,) = lists(run(make_pipeline(serving, publish_reasons=True), log.records))
    assert {item.reason for item in answer.items} == {Reason("popular")}


def test_a_withdrawn_item_is_no_reason(serving: Serving, world: TinyWorld) -> None:
    """What the member played and nobody may be shown now is not named."""
    named = named_items(serving, world.items)
    assert named
    assert named <= {f"item-{i * i % 29}" for i in range(30)}
    gone = min(named)
    assert gone not in named_items(serving, [item for item in world.items if item.item_id != gone])


def named_items(serving: Serving, items: Sequence[Item]) -> set[str]:
    """The items that reasons name, with a catalogue of these items."""
    catalogue = LiveCatalogue()
    catalogue.apply(ItemChanges({hash64(item.item_id): item for item in items}, len(items)))
    pipeline = make_pipeline(serving, catalogue=catalogue, publish_reasons=True)
    answers = lists(run(pipeline, plays(serving, 30)))
    reasons = [item.reason for answer in answers for item in answer.items]
    return {reason.item_id for reason in reasons if reason.because == "because_of" and reason.item_id}


def test_reasons_that_would_make_a_list_too_large_are_left_out(serving: Serving) -> None:
    records = plays(serving)
    plain = run(make_pipeline(serving), records)
    largest = max(len(output.value) for output in plain.outputs if output.kind == "recommendation")
    limits = TopicLimits(recommendations=largest + OVERHEAD_BYTES + 30)
    records = plays(serving)
    bounded = run(make_pipeline(serving, publish_reasons=True, limits=limits), records)
    for answer, want in zip(lists(bounded), lists(plain), strict=True):
        assert [(i.item_id, i.title) for i in answer.items] == [(i.item_id, i.title) for i in want.items], (
            "titles stay whole"
        )
    assert {item.reason for answer in lists(bounded) for item in answer.items} == {msgspec.UNSET}


def test_without_the_setting_no_item_has_a_reason(serving: Serving) -> None:
    result = run(make_pipeline(serving, counts=counts()), plays(serving))
    assert {item.reason for answer in lists(result) for item in answer.items} == {msgspec.UNSET}
    assert hash64("item-1") in counts().hashes, "the table is of these items"
