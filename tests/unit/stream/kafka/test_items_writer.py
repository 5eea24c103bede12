"""What a catalogue file changes on the items topic, and which files are not believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from intentrec_core.domain.spec import Filter, FilterKind
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.features.catalogue import Catalogue, Item, LeftOut
from intentrec_core.features.release_times import check_release_times
from stream.kafka.items_writer import MAX_ITEM_BYTES, SyncPlan, _file_row, plan_sync, put_item, sync_items
from stream.settings import Settings
from stream.wire.codec import decode_item
from stream.wire.messages import CatalogueItem


def rows(num: int, **attributes: Any) -> list[Item]:
    return [Item(f"m{i}", f"Title {i}", attributes) for i in range(num)]


def after(known: Mapping[str, CatalogueItem], plan: SyncPlan) -> dict[str, CatalogueItem]:
    """The items on the topic once the plan is written."""
    written = {**plan.put, **plan.noted}
    items = {**known, **{key.decode(): decode_item(value) for key, value in written.items()}}
    return {item_id: item for item_id, item in items.items() if item_id.encode() not in plan.withdraw}


FIVE = after({}, plan_sync("items.jsonl", rows(5), {}))
HAND = CatalogueItem(item_id="hand", title="By hand")


def test_a_first_file_puts_its_rows() -> None:
    assert {item_id: (item.title, item.written_by) for item_id, item in FIVE.items()} == {
        f"m{i}": (f"Title {i}", "file") for i in range(5)
    }


def test_the_same_file_again_writes_nothing() -> None:
    plan = plan_sync("items.jsonl", rows(5), FIVE)
    assert (plan.put, plan.withdraw, plan.num_same) == ({}, [], 5)


def test_rows_that_differ_are_put_and_rows_that_are_missing_are_withdrawn() -> None:
    changed = [Item("m0", "Another title"), *rows(4)[1:]]
    plan = plan_sync("items.jsonl", changed, FIVE)
    assert list(plan.put) == [b"m0"]
    assert plan.withdraw == [b"m4"]


def test_items_put_by_hand_stay_where_the_file_does_not_have_them() -> None:
    assert after({**FIVE, "hand": HAND}, plan_sync("items.jsonl", rows(5), {**FIVE, "hand": HAND}))["hand"] == HAND


def by_hand(title: str, before: CatalogueItem | None) -> CatalogueItem:
    """What ``items put`` writes over a record of the topic."""
    return CatalogueItem(item_id="m1", title=title, file_row=_file_row(before))


def other_order(row: Item) -> Item:
    return Item(row.item_id, row.title, dict(reversed(row.attributes.items())))


def test_what_was_put_by_hand_stays_until_its_row_in_the_file_changes() -> None:
    file = rows(5, year=1999, genres=["Drama"])
    known = after({}, plan_sync("items.jsonl", file, {}))
    known["m1"] = by_hand("Corrected", known["m1"])
    for same in (file, [other_order(row) for row in file]):
        plan = plan_sync("items.jsonl", same, known)
        assert plan.kept == ["m1"]
        assert b"m1" not in plan.put
        assert not plan.noted
        assert "1 put by hand before and left so, since their rows are as before (m1)" in plan.line()
    known["m1"] = by_hand("Corrected again", known["m1"])
    changed = [file[0], Item("m1", "Title 1", {"year": 2000, "genres": ["Drama"]}), *file[2:]]
    plan = plan_sync("items.jsonl", changed, known)
    assert plan.over_hand == ["m1"]
    assert "1 items put, 0 withdrawn, 4 unchanged, 1 of them over what was put by hand" in plan.line()
    synced = after(known, plan)
    assert (synced["m1"].title, synced["m1"].written_by, synced["m1"].file_row) == ("Title 1", "file", None)


def test_a_file_that_gets_a_row_for_an_item_put_by_hand_is_the_last_write() -> None:
    known = {**FIVE, "m5": CatalogueItem(item_id="m5", title="By hand", file_row=_file_row(None))}
    assert after(known, plan_sync("items.jsonl", rows(6), known))["m5"].title == "Title 5"


def test_what_another_program_put_stays_until_the_row_changes_from_the_next_sync_on() -> None:
    """So do the records of earlier releases: none says what the file had then."""
    known = {**FIVE, "m1": CatalogueItem(item_id="m1", title="Corrected")}
    plan = plan_sync("items.jsonl", rows(5), known)
    assert (list(plan.noted), list(plan.put), plan.kept) == ([b"m1"], [], ["m1"])
    known = after(known, plan)
    assert (known["m1"].title, known["m1"].written_by) == ("Corrected", "hand")
    assert not plan_sync("items.jsonl", rows(5), known).noted
    assert after(known, plan_sync("items.jsonl", rows(5, year=1), known))["m1"].attributes == {"year": 1}


def test_an_item_withdrawn_by_hand_and_put_again_by_hand_stays() -> None:
    withdrawn = CatalogueItem(item_id="m1", withdrawn=True)
    known = {**FIVE, "m1": by_hand("Back", withdrawn)}
    assert after(known, plan_sync("items.jsonl", rows(5), known))["m1"].title == "Back"


def test_what_was_withdrawn_by_hand_is_not_put_again_by_a_file() -> None:
    known = {**FIVE, "m1": CatalogueItem(item_id="m1", withdrawn=True)}
    plan = plan_sync("items.jsonl", rows(5), known)
    assert plan.held == ["m1"]
    assert after(known, plan)["m1"].withdrawn
    assert "m1" in plan.line()


def test_a_withdrawal_by_hand_stays_on_the_topic_when_the_file_loses_the_row() -> None:
    known = {**FIVE, "m4": CatalogueItem(item_id="m4", withdrawn=True)}
    assert after(known, plan_sync("items.jsonl", rows(4), known))["m4"].withdrawn


@pytest.mark.parametrize("known", [{}, FIVE])
@pytest.mark.parametrize("allow_shrink", [False, True])
def test_an_empty_file_changes_nothing(known: Mapping[str, CatalogueItem], allow_shrink: bool) -> None:
    with pytest.raises(DataError, match=r"items\.jsonl: no items"):
        plan_sync("items.jsonl", [], known, allow_shrink=allow_shrink)


def test_a_file_more_than_a_fifth_smaller_changes_nothing() -> None:
    assert plan_sync("items.jsonl", rows(4), FIVE).withdraw == [b"m4"], "a fifth is allowed"
    with pytest.raises(DataError, match=r"items\.jsonl: it has 3 of the 5 items .* --allow-shrink"):
        plan_sync("items.jsonl", rows(3), FIVE)
    assert plan_sync("items.jsonl", rows(3), FIVE, allow_shrink=True).withdraw == [b"m3", b"m4"]


@pytest.mark.parametrize("empty", [{}, {"regions": None}, {"regions": []}, {"regions": ""}])
def test_a_file_that_lost_a_column_changes_nothing(empty: dict[str, Any]) -> None:
    known = after({}, plan_sync("items.jsonl", rows(5, regions=["de"], year=1999), {}))
    for num_lost in range(1, 6):
        changed = [
            Item(f"m{i}", f"T {i}", {"year": 1999, **(empty if i < num_lost else {"regions": ["de"]})})
            for i in range(5)
        ]
        if num_lost == 1:
            assert len(plan_sync("items.jsonl", changed, known).put) == 5, "a fifth is allowed"
            continue
        said = f"of the 5 items .* fewer have the attribute 'regions' in {5 - num_lost}, on the topic in 5: .*--allow-shrink$"
        with pytest.raises(DataError, match=rf"^items\.jsonl: {said}"):
            plan_sync("items.jsonl", changed, known)
        assert len(plan_sync("items.jsonl", changed, known, allow_shrink=True).put) == 5


FILTERS = (
    Filter(kind=FilterKind.AVAILABLE, key="in_stock"),
    Filter(kind=FilterKind.AT_MOST, key="maturity", event_key="max_maturity"),
    Filter(kind=FilterKind.CONTAINS, key="regions", event_key="region"),
)
MAY_BE_SHOWN: dict[str, Any] = {"in_stock": True, "maturity": 6, "regions": ["DE", "AT"]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("in_stock", "yes"), ("in_stock", False), ("in_stock", 0), ("in_stock", [True, False]),
        ("maturity", "PG"), ("maturity", True), ("maturity", [6, 12]),
        ("regions", "DE,AT"), ("regions", " "), ("regions", [None]), ("regions", ["de"]),
    ],
)  # fmt: skip
def test_a_file_by_which_a_filter_would_hide_more_than_a_fifth_changes_nothing(name: str, value: Any) -> None:
    known = after({}, plan_sync("items.jsonl", rows(10, **MAY_BE_SHOWN), {}, filters=FILTERS))
    for num_hidden in (2, 3, 10):
        hidden = [
            Item(row.item_id, row.title, {**row.attributes, name: value}) for row in rows(num_hidden, **MAY_BE_SHOWN)
        ]
        changed = [*hidden, *rows(10, **MAY_BE_SHOWN)[num_hidden:]]
        allowed = plan_sync("items.jsonl", changed, known, filters=FILTERS, allow_shrink=True)
        assert len(allowed.put) == num_hidden
        if num_hidden == 2:
            assert plan_sync("items.jsonl", changed, known, filters=FILTERS) == allowed, "a fifth is allowed"
            continue
        with pytest.raises(DataError, match=rf"^items\.jsonl: filter [a-z_]+ {name} would hide .*--allow-shrink$"):
            plan_sync("items.jsonl", changed, known, filters=FILTERS)


@pytest.mark.parametrize(
    ("name", "value"), [("in_stock", "yes"), ("maturity", "PG"), ("regions", " "), ("regions", None)]
)
def test_a_first_file_that_a_filter_would_hide_whole_changes_nothing(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf"^items\.jsonl: filter [a-z_]+ {name} would hide every item: no row has "):
        plan_sync("items.jsonl", rows(5, **{**MAY_BE_SHOWN, name: value}), {}, filters=FILTERS)
    one = [*rows(4, **{**MAY_BE_SHOWN, name: value}), Item("m4", "T", MAY_BE_SHOWN)]
    assert len(plan_sync("items.jsonl", one, {}, filters=FILTERS).put) == 5


def test_the_last_items_that_a_filter_shows_are_not_hidden_by_a_file() -> None:
    """They are a small part of the items, and all that anybody sees."""
    closed = {**MAY_BE_SHOWN, "in_stock": False}
    file = [*rows(99, **closed), Item("m99", "T", MAY_BE_SHOWN)]
    known = after({}, plan_sync("items.jsonl", file, {}, filters=FILTERS))
    with pytest.raises(DataError, match="available in_stock would hide"):
        plan_sync("items.jsonl", [*rows(99, **closed), Item("m99", "T", closed)], known, filters=FILTERS)
    new = Item("new", "T", MAY_BE_SHOWN)
    with pytest.raises(DataError, match="would hide 1 of the 1 items of the topic that it can show"):
        plan_sync("items.jsonl", [*rows(99, **closed), Item("m99", "T", closed), new], known, filters=FILTERS)


def test_data_that_a_filter_reads_however_they_are_spelled_hide_nothing() -> None:
    known = after({}, plan_sync("items.jsonl", rows(5, **MAY_BE_SHOWN), {}, filters=FILTERS))
    spelled = rows(5, in_stock="1", maturity="12.0", regions="AT")
    assert len(plan_sync("items.jsonl", spelled, known, filters=FILTERS).put) == 5


def test_new_items_and_items_withdrawn_by_hand_may_lack_what_the_others_have() -> None:
    known = after({}, plan_sync("items.jsonl", rows(5, regions=["de"]), {}))
    known |= {f"w{i}": CatalogueItem(item_id=f"w{i}", withdrawn=True, attributes={"year": 1}) for i in range(9)}
    new = [Item(f"n{i}", "New") for i in range(50)]
    withdrawn = [Item(f"w{i}", "Withdrawn") for i in range(9)]

    assert len(plan_sync("items.jsonl", [*rows(5, regions=["us"]), *new, *withdrawn], known).put) == 55


def test_a_file_with_other_ids_changes_nothing() -> None:
    """It is as large as before, and would withdraw everything."""
    others = [Item(f"v2-{row.item_id}", row.title) for row in rows(5)]
    with pytest.raises(DataError, match=r"it has 0 of the 5 items .* --allow-shrink"):
        plan_sync("items.jsonl", others, FIVE)
    assert len(plan_sync("items.jsonl", others, FIVE, allow_shrink=True).withdraw) == 5


def test_items_put_by_hand_do_not_count_as_rows_of_a_file() -> None:
    known = {f"hand-{i}": CatalogueItem(item_id=f"hand-{i}") for i in range(50)}
    assert not plan_sync("items.jsonl", rows(5), {**FIVE, **known}).withdraw


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Item("odd", "Fun \ud83d"), "JSON"),
        (Item("odd", "x" * (MAX_ITEM_BYTES + 1)), "bytes"),
        (Item("odd", "Title", {"thing": object()}), "JSON"),
    ],
    ids=["half an emoji", "too long", "no JSON"],
)
def test_a_row_that_no_record_can_hold_costs_that_row_alone(odd: Item, reason: str) -> None:
    known = {**FIVE, "odd": CatalogueItem(item_id="odd", title="As it was", written_by="file")}
    plan = plan_sync("items.jsonl", [*rows(5), odd], known)
    assert reason in plan.unfit["odd"]
    assert after(known, plan) == known
    assert "odd" in plan.line()


@pytest.mark.parametrize(
    ("row", "withdrawn"),
    [
        ('{"item_id": "m4", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", []),
        ('{"title": "which item is it?"}', []),
        (r'{"item_id": "m0", "genres": {"a": 1}, "maturity": "\ud83d"}', [b"m4"]),
        ('{"item_id": "m0", "": {"a": 1}}', [b"m4"]),
    ],
    ids=["nested too deeply", "no id", "attributes", "an attribute without a name"],
)
def test_what_is_left_out_of_a_file_is_said_and_a_row_that_cannot_be_read_withdraws_nothing(
    tmp_path: Path, row: str, withdrawn: list[bytes]
) -> None:
    file = tmp_path / "items.jsonl"
    others = (
        json.dumps({"item_id": item.item_id, "title": item.title}) for item in rows(4) if f'"{item.item_id}"' not in row
    )
    file.write_text("\n".join([*others, row]), "utf-8")
    catalogue = Catalogue.load(file)
    plan = plan_sync(str(file), catalogue, FIVE, left_out=catalogue.left_out)
    assert plan.withdraw == withdrawn
    assert plan.left_out == catalogue.left_out != ()
    assert ("none can be withdrawn" in plan.line()) is (withdrawn == [])


def test_a_release_that_is_no_time_stops_no_withdrawal() -> None:
    released = [Item(f"m{i}", f"Title {i}", {"released": -1 if i == 7 else "2020-01-01"}) for i in range(22)]
    known = after({}, plan_sync("items.jsonl", released, {}))
    catalogue = check_release_times(Catalogue(released[:21]), load_domain("video"))
    assert "m7" in catalogue.left_out[0].first
    assert plan_sync("items.jsonl", catalogue, known, left_out=catalogue.left_out).withdraw == [b"m21"]


def test_a_row_left_out_does_not_hide_that_a_file_has_shrunk() -> None:
    unread = LeftOut("", "it is nested too deeply to be read", "line 1", 1)
    with pytest.raises(DataError, match="--allow-shrink"):
        plan_sync("items.jsonl", rows(3), FIVE, left_out=[unread])


@pytest.mark.parametrize(
    ("attributes", "said"),
    [({"genres": [{"a": 1}]}, "genres: a nested value"), ({"x": "\ud83d"}, "x: a text with half")],
)
def test_an_item_put_by_hand_is_refused_rather_than_put_in_part(attributes: dict[str, Any], said: str) -> None:
    settings = Settings.load(broker="127.0.0.1:1", domain="video")  # no broker is asked
    with pytest.raises(ConfigError, match=f"item 'm1', {said}.*; allowed: texts"):
        asyncio.run(put_item(settings, Item("m1", "One", attributes)))


def test_a_plan_survives_the_topic() -> None:
    plan = plan_sync("items.jsonl", rows(2, genres=["Drama"], year=1995, available=True), {})
    item = msgspec.json.decode(plan.put[b"m1"])
    assert item == {
        "item_id": "m1", "title": "Title 1", "written_by": "file",
        "attributes": {"genres": ["Drama"], "year": 1995, "available": True},
    }  # fmt: skip


def test_releases_in_another_unit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    settings = Settings.load(broker="127.0.0.1:1", domain="video")  # no broker is asked
    released = {"released": 1_577_836_800_000}
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps({"item_id": "m1", "title": "One", **released}), "utf-8")
    with pytest.raises(DataError, match=r"items\.jsonl: .*item 'm1': released is 1577836800000.* milliseconds"):
        asyncio.run(sync_items(settings, file))
    with pytest.raises(ConfigError, match=r"item 'm1': released is 1577836800000.* milliseconds"):
        asyncio.run(put_item(settings, Item("m1", "One", released)))
