"""Pages of the rows that a domain declares: filled, titled and ordered as the messages themselves say."""

from __future__ import annotations

from itertools import combinations
from operator import itemgetter
from pathlib import Path

import msgspec
import pytest

from intentrec_core.features.catalogue import Item
from stream.bundles.serving import Serving
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.page_rows import MIN_ITEMS
from stream.pipeline.row_rules import RowKind, RowRule
from stream.wire.messages import PageRow, Recommendation
from stream.wire.row_order import MARGIN
from stream.wire.sizes import OVERHEAD_BYTES, TopicLimits
from tests.worlds.bundle_world import PlayLog, Record, count_table, make_pipeline, make_serving
from tests.worlds.item_log import ItemLog
from tests.worlds.pipeline_results import intents, lists, run
from tests.worlds.tiny_world import TinyWorld

DAY_S = 86_400.0
ROWS = """
[[rows]]
kind = "continue"
title = "Go on with"
head = "action"
label = "continue"
[[rows]]
kind = "intent"
title = "Because you are in the mood for {label}"
head = "genre"
at_most = 2
size = 4
[[rows]]
kind = "because_of"
title = "Because you played {title}"
weight = 0.1
size = 4
[[rows]]
kind = "popular"
title = "Popular now"
size = 4
[[rows]]
kind = "new"
title = "New here"
weight = 0.3
"""
RULES = msgspec.toml.decode(ROWS, type=dict[str, tuple[RowRule, ...]])["rows"]


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(3))


def plays(serving: Serving, num: int = 30) -> list[Record]:
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    log = PlayLog()
    for i in range(num):
        log.play(("ann", "ben", "cho")[i % 3], i * i % 29, 100.0 * i)
    return log.records


#: Items 1 and 5 are played most, and were first played long ago; items 20 to 29 are new.
TABLE = count_table(
    [(f"item-{i}", at_s) for i, num in ((1, 9), (5, 5)) for at_s in (0.0, *[20 * DAY_S] * num)]
    + [(f"item-{i}", 20 * DAY_S) for i in range(20, 30)],
    at_s=20 * DAY_S + 1,
)


def pages(serving: Serving, num: int = 30) -> list[tuple[Recommendation, list[PageRow]]]:
    answers = lists(run(make_pipeline(serving, counts=TABLE, rows=RULES), plays(serving, num)))
    assert not any(answer.rows is msgspec.UNSET for answer in answers)
    return [(answer, list(answer.rows)) for answer in answers]


def kinds(rows: list[PageRow]) -> set[str]:
    return {row.kind for row in rows}


def test_every_kind_of_row_is_filled_and_no_item_is_on_a_page_twice(serving: Serving) -> None:
    found = pages(serving)
    assert set.union(*(kinds(rows) for _, rows in found)) == {"continue", "intent", "because_of", "popular", "new"}
    for _, rows in found:
        shown = [item.item_id for row in rows for item in row.items]
        assert len(shown) == len(set(shown))
        assert all(MIN_ITEMS <= len(row.items) <= (10 if row.kind in ("continue", "new") else 4) for row in rows)
        assert len([row for row in rows if row.kind == "intent"]) <= 2


def test_rows_hold_what_their_titles_say(serving: Serving, world: TinyWorld) -> None:
    genres = {item.item_id: item.attributes["genre"] for item in world.items}
    played: dict[str, list[str]] = {}
    for record, (answer, rows) in zip(plays(serving), pages(serving), strict=True):
        own = played.setdefault(answer.user_id, [])
        own.append(msgspec.json.decode(record.value or b"")["item_id"])
        for row in rows:
            ids = [item.item_id for item in row.items]
            assert [item.title for item in row.items] == [f"Title {i.removeprefix('item-')}" for i in ids]
            match row.kind:
                case "continue":
                    newest = list(dict.fromkeys(reversed(own[-24:])))
                    assert ids == [i for i in newest if i in ids], "newest first"
                    assert (row.title, row.head, row.label) == ("Go on with", "action", "continue")
                case "intent":
                    assert row.title == f"Because you are in the mood for {row.label}"
                    assert all(row.label in genres[i] for i in ids)
                case "because_of":
                    assert row.item_id == own[-1]
                    assert row.title == f"Because you played Title {own[-1].removeprefix('item-')}"
                case "popular":
                    played_much = [i for i in ids if i in ("item-1", "item-5")]
                    assert ids[: len(played_much)] == sorted(played_much), "most plays first"
                case "new":
                    assert all(int(i.removeprefix("item-")) >= 20 for i in ids)


def test_rows_follow_the_weights_of_the_intents(serving: Serving) -> None:
    result = run(make_pipeline(serving, counts=TABLE, rows=RULES), plays(serving))
    orders = set()
    for answer, update in zip(lists(result), intents(result), strict=True):
        assert isinstance(answer.rows, list)
        for row in answer.rows:
            if row.label is not msgspec.UNSET:
                assert row.weight == pytest.approx(
                    update.weights[row.head] * update.intents[row.head][row.label], abs=1e-5
                )
            else:
                assert row.weight == {"because_of": 0.1, "popular": 0.0, "new": 0.3}[row.kind]
        weights = [row.weight for row in answer.rows]
        assert all(below <= MARGIN * above for above, below in combinations(weights, 2))
        orders.add(tuple(row.label or row.kind for row in answer.rows))
    assert len(orders) > 1, "the order is not always the same"


def test_an_intent_row_is_of_the_likeliest_label_however_small_the_lead(serving: Serving) -> None:
    rule = RowRule(kind=RowKind.INTENT, title="{label}", head="genre", at_most=1, size=1)
    result = run(make_pipeline(serving, counts=TABLE, rows=(rule,)), plays(serving))
    shown = [row.label for answer in lists(result) for row in answer.rows]
    assert shown == [max(update.intents["genre"].items(), key=itemgetter(1))[0] for update in intents(result)]


def test_no_row_shows_what_the_filters_hide(serving: Serving, world: TinyWorld) -> None:
    hidden = {
        item.item_id for item in world.items if not item.attributes["available"] or item.attributes["maturity"] > 4
    }
    assert hidden
    for _, rows in pages(serving):
        assert not hidden & {item.item_id for row in rows for item in row.items}


def test_the_list_itself_is_as_without_rows(serving: Serving) -> None:
    with_rows = [answer.items for answer, _ in pages(serving)]
    plain = lists(run(make_pipeline(serving, counts=TABLE), plays(serving)))
    assert [answer.items for answer in plain] == with_rows
    assert all(answer.rows is msgspec.UNSET for answer in plain)


def test_a_page_is_the_same_however_the_plays_are_grouped_and_after_a_restart(serving: Serving) -> None:
    """It depends on the history, the bundle and the table alone; nothing that was shown before is in it."""
    expected = [rows for _, rows in pages(serving)]
    records, pipeline = plays(serving), make_pipeline(serving, counts=TABLE, rows=RULES)
    found = []
    for start in range(0, len(records), 7):
        found += [answer.rows for answer in lists(run(pipeline, records[start : start + 7]))]
        for member in serving.engine.cached_members():
            serving.engine.forget(member)
    same = [(r.kind, r.title, [i.item_id for i in r.items]) for rows in found for r in rows]
    assert same == [(r.kind, r.title, [i.item_id for i in r.items]) for rows in expected for r in rows]


def test_rows_that_would_make_a_message_too_large_are_left_out(serving: Serving) -> None:
    plain = run(make_pipeline(serving), plays(serving))
    largest = max(len(output.value) for output in plain.outputs if output.kind == "recommendation")
    limits = TopicLimits(recommendations=largest + OVERHEAD_BYTES + 30)
    pipeline = make_pipeline(serving, rows=RULES, limits=limits)
    bounded = lists(run(pipeline, plays(serving)))
    assert [answer.items for answer in bounded] == [answer.items for answer in lists(plain)]
    assert all(answer.rows is msgspec.UNSET for answer in bounded)
    (cut,) = [metric for metric in pipeline.metrics.registry.collect() if metric.name == "intentrec_cut_lists"]
    assert cut.samples[0].value > 0
    assert "without reasons and rows" in cut.documentation, "no title of theirs was cut"


def test_a_newcomer_gets_a_page_too(serving: Serving) -> None:
    log = PlayLog()
    log.play("dan", "an item of no bundle", 100.0)
    (answer,) = lists(run(make_pipeline(serving, counts=TABLE, rows=RULES), log.records))
    assert answer.fallback == "popular"
    assert answer.rows
    assert not {"continue", "because_of"} & kinds(list(answer.rows))


def test_what_is_popular_counts_items_that_are_new_to_the_bundle(serving: Serving, world: TinyWorld) -> None:
    """The table of counts knows their plays, as it does for the popular list."""
    items, catalogue = ItemLog(), LiveCatalogue()
    for number in range(world.num_items):
        items.put(world.item(number))
    items.put(Item("hit", "Hit", {**world.item(2).attributes, "available": True, "maturity": 0}))
    catalogue.apply(items.changes(0))
    table = count_table([("hit", 20 * DAY_S)] * 20 + [("item-5", 20 * DAY_S)] * 5, at_s=20 * DAY_S + 1)
    popular = tuple(rule for rule in RULES if rule.kind is RowKind.POPULAR)
    pipeline = make_pipeline(serving, catalogue=catalogue, counts=table, rows=popular)
    for answer in lists(run(pipeline, plays(serving))):
        (row,) = answer.rows
        assert row.items[0].item_id == "hit"


def test_a_rule_of_another_domain_has_no_rows_and_the_others_have_theirs(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    other = RowRule(kind=RowKind.INTENT, title="{label}", head="format")
    (answer, *_) = lists(run(make_pipeline(serving, rows=(other, *RULES)), plays(serving)))
    assert answer.rows
    assert "no rows of rows[0]: head is 'format'; allowed: age, genre" in caplog.text


def test_a_bundle_without_intents_has_the_other_rows(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(3, intent_stage=False))
    assert {kind for _, rows in pages(serving) for kind in kinds(rows)} == {"continue", "because_of", "popular", "new"}
