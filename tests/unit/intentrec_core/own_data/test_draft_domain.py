"""A drafted domain is what the data hold, says why, and is accepted by what checks a domain before training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from intentrec_core.domain.spec import FieldKind, FilterKind, Rule
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.own_data.column_study import ColumnSource, study
from intentrec_core.own_data.draft_domain import Draft, _free_name, draft_domain
from intentrec_core.plays.table import PlayRow, check_plays, plays_table

T, DAY_MS = 1_433_221_332_117, 86_400_000


def drafted(plays: pa.Table, catalogue: Catalogue = Catalogue(())) -> Draft:  # noqa: B008  (it is immutable)
    draft = draft_domain("mine", check_plays(plays), catalogue, "the test")
    tomllib.loads(draft.text)
    return draft


def became(draft: Draft) -> dict[str, str]:
    return {column.key: what for column, what in draft.columns}


def shop(num: int = 600, **extra: Any) -> tuple[pa.Table, Catalogue]:
    """Members who stay with a category; one in five plays is of any. ``extra``: context of each play, by its number and item."""
    random, rows = np.random.default_rng(0), []
    for at in range(num):
        member = at % 20
        category = (member + at // 200) % 5
        item = int(random.integers(12)) * 5 + (category if random.random() < 0.8 else int(random.integers(5)))
        context: Mapping[str, str | None] = {key: value(at, item) for key, value in extra.items()}
        action = "view" if random.random() < 0.7 else "cart"
        rows.append(PlayRow(f"e{at}", f"u{member}", f"i{item}", T + at * 3_600_000, action, None, None, context))
    attributes = [
        {
            "category": f"c{item % 5}",
            "tags": ["all", f"t{item % 3}"],
            "price": 10.0 + item,
            "listed": f"20{10 + item % 5}-03-01",
            "in_stock": item != 7,
            "sku": f"sku-{item}",
            "min_age": item % 4 * 5,
            "ships_to": ["eu"] if item % 2 else ["us"],
        }
        for item in range(60)
    ]
    return plays_table(rows), Catalogue([Item(f"i{n}", f"T{n}", of) for n, of in enumerate(attributes)])


def test_what_can_be_predicted_and_what_is_done_become_intents() -> None:
    draft = drafted(*shop())
    heads = {head.name for head in draft.domain.heads}
    assert {"action", "category"} <= heads
    assert len(heads) <= 4
    fields = {field.name: field for field in draft.domain.fields}
    assert set(fields["category"].values) == {f"c{n}" for n in range(5)}
    assert fields["tags"].kind is FieldKind.MULTI_LABEL
    assert fields["price"].kind is FieldKind.BUCKETED
    assert fields["listed"].rule is Rule.TIME_SINCE_RELEASE
    assert {"contact", "gap", "hour_of_day"} <= set(fields)
    assert became(draft)["sku"] == "left out: 60 values of 60 items, which are names"


def test_what_cannot_be_predicted_is_no_intent_while_others_can() -> None:
    random = np.random.default_rng(1)
    plays, catalogue = shop(chance=lambda *_: "abcdef"[random.integers(6)])
    draft = drafted(plays, catalogue)
    skills = {column.key: column.skill for column, _ in draft.columns}
    assert skills["chance"] < 0.05 < skills["category"]
    assert {head.name for head in draft.domain.heads} == {
        key for key, skill in skills.items() if skill >= 0.05 or key == "action"
    }
    assert became(draft)["chance"] == "field chance"


def test_two_intents_are_drafted_even_where_nothing_can_be_predicted() -> None:
    random = np.random.default_rng(1)
    rows = [
        PlayRow(f"e{at}", f"u{at % 20}", f"i{random.integers(300)}", T + at, None, None, None, context)
        for at in range(600)
        for context in [{"much": "abcdefgh"[random.integers(8)], "few": "xy"[random.integers(2)]}]
    ]
    heads = {head.name for head in drafted(plays_table(rows)).domain.heads}
    assert len(heads) == 2
    assert "much" in heads, "whose labels say most"


def test_skill_is_how_much_the_last_label_says_of_the_next() -> None:
    """Members alternate between two items of one category, or change the category at every play."""
    rows = [PlayRow(f"e{at}", f"u{at % 2}", f"i{at // 2 % 4}", T + at * 1000) for at in range(80)]
    items = Catalogue([Item(f"i{n}", "", {"same": "x" if n < 2 else "y", "other": "ab"[n % 2]}) for n in range(4)])
    found = {column.key: column for column in study(plays_table(rows), items).columns}
    # The items of a member come in the order 0, 1, 2, 3: `same` stays in two steps of four, `other` changes in each.
    assert found["other"].hits == 0.0
    assert found["other"].frequent == pytest.approx(0.5, abs=0.05)
    assert found["other"].skill == pytest.approx(-1.0, abs=0.2)
    assert found["same"].hits == pytest.approx(0.5, abs=0.05)
    assert found["same"].entropy_bits == pytest.approx(1.0)
    assert found["contact"].values == (("later", 72), ("first", 8))


def test_the_same_item_again_is_no_skill_of_its_attributes() -> None:
    rows = [PlayRow(f"e{at}", "u", f"i{at // 10 % 6}", T + at * 1000) for at in range(120)]
    items = Catalogue([Item(f"i{n}", "", {"label": f"l{n}"}) for n in range(6)])
    found = {column.key: column for column in study(plays_table(rows), items).columns}
    assert found["label"].hits == 0.0


def test_ids_constants_and_rare_values_are_left_out_with_the_reason() -> None:
    plays, catalogue = shop(
        order=lambda at, _: str(at),
        device=lambda at, _: "tv" if at % 3 else "phone",
        site=lambda *_: "main",
        coupon=lambda at, _: "c" if at % 50 == 0 else None,
        note=lambda at, _: f"note {at}",
    )
    draft = drafted(plays, catalogue)
    what = became(draft)
    assert what["order"] == "left out: 600 values at 600 plays, which are ids"
    assert what["note"] == "left out: 600 values at 600 plays, which are ids"
    assert what["site"] == "left out: 'main' at 100.0% of the plays"
    assert what["coupon"] == "left out: only 2.0% of the plays have it"
    assert what["device"].endswith("device")
    assert "order" not in {field.key for field in draft.domain.fields}


def test_whole_numbers_that_are_called_an_id_are_labels() -> None:
    plays, catalogue = shop()
    catalogue = Catalogue([Item(i.item_id, "", {"categoryid": 1000 + int(i.item_id[1:]) % 15}) for i in catalogue])
    field = next(field for field in drafted(plays, catalogue).domain.fields if field.name == "categoryid")
    assert field.kind is FieldKind.CATEGORICAL
    assert field.values[0] == "1000"


def test_a_filter_is_switched_on_where_the_data_say_so() -> None:
    draft = drafted(*shop())
    assert {filter_.kind for filter_ in draft.domain.filters} == {FilterKind.AVAILABLE}
    assert 'kind = "watched"' in draft.text
    once = [PlayRow(f"e{at}", f"u{at % 9}", f"i{at}", T + at, "ab"[at % 2]) for at in range(90)]
    assert [filter_.kind for filter_ in drafted(plays_table(once)).domain.filters] == [FilterKind.WATCHED]


def test_filters_by_the_members_value_are_proposed_and_off() -> None:
    plays, catalogue = shop(
        country=lambda _, item: "eu" if item % 2 else "us", age=lambda _, item: str(item % 4 * 5 + 2)
    )
    draft = drafted(plays, catalogue)
    assert '# kind = "contains"\n# key = "ships_to"\n# event_key = "country"' in draft.text
    assert '# kind = "at_most"\n# key = "min_age"\n# event_key = "age"' in draft.text
    assert {filter_.kind for filter_ in draft.domain.filters} == {FilterKind.AVAILABLE}
    proposals = "\n".join(
        line.removeprefix("# ")
        for line in draft.text[draft.text.index("# [[filter]]") :].splitlines()
        if "=" in line or "[[" in line
    )
    assert len(tomllib.loads(proposals)["filter"]) >= 2


def test_own_items_and_the_window_follow_the_members() -> None:
    again = [PlayRow(f"e{at}", "u1", f"i{at % 3}", T + at, "ab"[at % 2]) for at in range(200)]
    draft = drafted(plays_table(again))
    assert draft.domain.first_model.own_items
    assert draft.domain.window == 128
    once = [PlayRow(f"e{at}", f"u{at % 9}", f"i{at}", T + at, "ab"[at % 2]) for at in range(90)]
    assert not drafted(plays_table(once)).domain.first_model.own_items
    assert drafted(plays_table(once)).domain.window == 16


def test_an_intent_that_only_the_later_plays_have_is_a_field() -> None:
    """`train` learns from the earliest plays: a label that begins after them could not be learnt."""
    plays, _ = shop(
        late=lambda at, _: "xy"[at % 2] if at > 419 else None, soon=lambda at, _: "xy"[at % 2] if at > 60 else None
    )
    draft = drafted(plays)
    assert "soon" in {head.name for head in draft.domain.heads}
    assert "late" not in {head.name for head in draft.domain.heads}
    assert "late" in {field.name for field in draft.domain.fields}


def test_any_name_and_value_makes_a_valid_file() -> None:
    values = ['quote"', "back\\slash", "new\nline", "\x7f\x00", "é漢", "# no comment"]
    plays, catalogue = shop(
        **{key: lambda at, _: values[at % 6] for key in ("Ünï çode!", "1st", "ts_ms", "filter_x", "ns " * 30, "A", "a")}
    )
    draft = drafted(plays, catalogue)
    assert set(next(field for field in draft.domain.fields if field.key == "1st").values) == set(values)
    assert len({field.name for field in draft.domain.fields}) == len(draft.domain.fields)


def test_data_without_anything_to_predict_are_refused_in_one_line() -> None:
    rows = [PlayRow(f"e{at}", f"u{at}", f"i{at}", T + at) for at in range(200)]
    with pytest.raises(DataError, match=r"the test: nothing in these plays could be an intent: .*; add one"):
        drafted(plays_table(rows))
    with pytest.raises(DataError, match="1 plays: a domain is drafted from what many plays hold"):
        drafted(plays_table(rows[:1]))


def test_the_study_names_where_a_column_comes_from() -> None:
    found = {(column.key, column.source) for column in study(*shop(region=lambda at, _: "ab"[at % 2])).columns}
    assert {
        ("action", ColumnSource.PLAY),
        ("region", ColumnSource.PLAY),
        ("category", ColumnSource.ITEM),
        ("contact", ColumnSource.RULE),
    } <= found


@pytest.mark.parametrize(
    "key", ["filter_of_a_very_long_column_name", "1st_column_with_a_long_name_indeed", "action" * 9]
)
def test_a_name_of_a_field_fits_whatever_its_column_is_called(key: str) -> None:
    name = _free_name(key, set())
    assert len(name) <= 32
    assert not name.startswith("filter_")
    assert len(_free_name(key, {name})) <= 32
