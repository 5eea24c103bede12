"""The catalogue: it is read back as written, and invalid values are named."""

from __future__ import annotations

import tempfile
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import DataError
from intentrec_core.features import attributes
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.plays.table import check_plays

ITEMS = [
    Item("a", "Alpha", {"genres": ["x", "y"], "year": 1999, "live": True, "released": "2024-05-01"}),
    Item("b", "Beta", {"genres": [], "price": 2.5}),
    Item("ünï", "Ünï", {}),
]


def test_parquet_gives_back_what_was_saved(tmp_path: Path) -> None:
    Catalogue(ITEMS).save(tmp_path / "items.parquet")

    assert Catalogue.load(tmp_path / "items.parquet") == Catalogue(ITEMS)
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_json_lines_are_read_with_absent_and_null_attributes_alike(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": "a", "title": "Alpha", "year": 1999, "note": null}\n\n{"item_id": "b"}\n', "utf-8")

    assert Catalogue.load(path).items == [Item("a", "Alpha", {"year": 1999}), Item("b", "b", {})]


def test_dates_and_times_of_a_foreign_parquet_become_iso(tmp_path: Path) -> None:
    table = pa.table({"item_id": ["a"], "day": [date(2024, 5, 1)], "at": [datetime(2024, 5, 1, 12, 30)]})
    pq.write_table(table, tmp_path / "items.parquet")

    (item,) = Catalogue.load(tmp_path / "items.parquet")

    assert item.attributes == {"day": "2024-05-01", "at": "2024-05-01T12:30:00"}


def test_whole_numbers_are_ids_as_they_are_in_plays(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": 7}\n', "utf-8")
    pq.write_table(pa.table({"item_id": [7]}), tmp_path / "items.parquet")

    assert Catalogue.load(tmp_path / "items.jsonl").items == [Item("7", "7")]
    assert Catalogue.load(tmp_path / "items.parquet").items == [Item("7", "7")]


def test_nan_is_a_missing_value_wherever_it_stands(tmp_path: Path) -> None:
    nan = float("nan")
    columns = {"item_id": ["a", "b"], "title": [nan, 5.0], "price": [nan, 2.0], "sizes": [[1.0, nan], [2.0, 3.0]]}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": "a", "title": NaN, "price": NaN, "sizes": [1.0, NaN]}\n'
        '{"item_id": "b", "title": 5.0, "price": 2.0, "sizes": [2.0, 3.0]}\n',
        "utf-8",
    )

    for name in ("items.parquet", "items.jsonl"):
        assert Catalogue.load(tmp_path / name).items == [
            Item("a", "a", {"sizes": [1.0]}),
            Item("b", "5", {"price": 2.0, "sizes": [2.0, 3.0]}),
        ]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "a"}\n', "utf-8-sig")

    assert Catalogue.load(tmp_path / "items.jsonl").items == [Item("a", "a")]


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], [1], [2]], names=["item_id", "year", "year"]), tmp_path / "items.parquet")

    with pytest.raises(DataError, match=r"items\.parquet: column year occurs 2 times: keep one$"):
        Catalogue.load(tmp_path / "items.parquet")


@pytest.mark.parametrize("item_id", ["", "x" * 257, "é" * 129])
def test_an_id_no_play_could_carry_is_refused(item_id: str) -> None:
    with pytest.raises(DataError, match="1 to 256 bytes"):
        Catalogue([Item(item_id, "?")])


def test_an_id_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'a' occurs twice, in item 0 and item 2: keep one row per item"):
        Catalogue([ITEMS[0], ITEMS[1], ITEMS[0]])


@pytest.mark.parametrize("allow_nulls", [False, True])
def test_the_rows_of_an_id_that_stands_there_twice_are_named(tmp_path: Path, allow_nulls: bool) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "a"}\n\n{"item_id": ""}\n{"item_id": "a"}\n', "utf-8")
    with pytest.raises(
        DataError, match=r"items\.jsonl: catalogue: item_id 'a' occurs twice, in line 1 and line 4: keep"
    ):
        Catalogue.load(tmp_path / "items.jsonl")
    with pytest.raises(DataError, match="occurs twice, in row 1 and row 2"):
        Catalogue.from_table(pa.table({"item_id": [None if allow_nulls else "b", "a", "a"], "year": [1, 2, 3]}))


IDS = [
    pa.array([7.0, 123456789012.0]),
    pa.array([7, 123456789012]),
    pa.array([Decimal("7.00"), Decimal("123456789012")], pa.decimal128(20, 2)),
    pa.array([b"7", b"123456789012"]),
]


@pytest.mark.parametrize("ids", IDS, ids=lambda ids: str(ids.type))
def test_an_id_reads_in_a_catalogue_as_in_plays(ids: pa.Array) -> None:
    plays = check_plays(pa.table({"event_id": ids, "user_id": ids, "item_id": ids, "ts_ms": [631152000000] * 2}))
    items = Catalogue.from_table(pa.table({"item_id": ids}))

    assert [item.item_id for item in items] == plays.column("item_id").to_pylist() == ["7", "123456789012"]
    assert items.left_out == ()


def test_a_whole_number_with_a_point_is_an_id_in_json_lines(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": 7.0}\n', "utf-8")

    assert Catalogue.load(tmp_path / "items.jsonl").items == [Item("7", "7")]


@pytest.mark.parametrize(
    ("titles", "shown", "said"),
    [
        (pa.array(["A", "B"]), ["A", "B"], []),
        (pa.array([1984, None]), ["1984", "b"], []),
        (pa.array([2.0, 2.5]), ["2", "2.5"], []),
        (pa.array([Decimal("2.00"), Decimal("2.50")]), ["2", "2.5"], []),
        (pa.array([b"A", b"B"]), ["A", "B"], []),
        (pa.array([np.inf, np.nan]), ["a", "b"], ["inf, which is not finite"]),
        (pa.array([np.inf, 1.5]), ["a", "1.5"], ["inf, which is not finite"]),
        (pa.array([["A"], None]), ["a", "b"], ["a list"]),
        (pa.array([date(2026, 3, 1), None]), ["a", "b"], ["a date"]),
        (pa.array([b"\xff", b"B"]), ["a", "B"], ["bytes that are no UTF-8"]),
        (
            pa.array([b"\xff", b"B"]).view(pa.string()),
            ["a", "B"],
            ["not readable ('utf-8' codec can't decode byte 0xff"],
        ),
    ],
)
def test_a_title_that_cannot_be_shown_is_named(titles: pa.Array, shown: list[str], said: list[str]) -> None:
    catalogue = Catalogue.from_table(pa.table({"item_id": ["a", "b"], "title": titles}))

    assert [item.title for item in catalogue] == shown
    lines = [found.line() for found in catalogue.left_out]
    assert [line.startswith(f"row 0, item 'a', title: {text}") for line, text in zip(lines, said, strict=True)] == [
        True for _ in said
    ]


def test_a_line_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    lines = [f'{{"item_id": "{i}", "title": "ü"}}\n'.encode() for i in range(2000)]
    path.write_bytes(b"".join(lines) + b'{"item_id": "z", "title": "caf\xe9"}\n')

    with pytest.raises(DataError, match=r"items\.jsonl: line 2001: character 31 is the byte 0xe9, which is not UTF-8"):
        Catalogue.load(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"item_id": "a"}\n{"item_id": }\n', "line 2: not JSON"),
        ('["a"]\n', "line 1: not a JSON object"),
        ('{"item_id": 7.5}\n', "line 1: item_id is 7.5"),
        ("item_id,title\na,A\n", r"line 1: not JSON: .*; a catalogue is Parquet \(\*\.parquet\) or JSON lines"),
        ('[{"item_id": "a"}]\n', "line 1: not a JSON object; a catalogue is Parquet"),
        ('[\n{"item_id": "a"}]\n', "line 1: not JSON: .*; a catalogue is Parquet"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(text, "utf-8")

    with pytest.raises(DataError, match=complaint) as raised:
        Catalogue.load(path)
    assert str(path) in str(raised.value)


def test_a_mistake_in_a_line_after_a_long_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"item_id": "i", "a": {"9" * 5000}, bad}}\n', "utf-8")

    with pytest.raises(DataError, match=r"items\.jsonl: line 1: not JSON: Expecting property name"):
        Catalogue.load(path)


@pytest.mark.parametrize("text", ["1" * 40_000 + "x", "1." + "1" * 40_000 + "x", "1" * 40_000 + "e"])
def test_a_long_text_is_read_in_time_that_grows_with_its_length(text: str) -> None:
    """With a search that tries every split of the digits, each of these would take minutes."""
    start_s = time.process_time()

    assert np.isnan([attributes.number(text), attributes.moment(text)]).all()
    assert attributes.release_s(text) is None

    assert time.process_time() - start_s < 5.0


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(b"nothing of the kind")

    with pytest.raises(DataError, match=r"items\.parquet"):
        Catalogue.load(path)


#: Each line of a file, what is left of its item, and what is said of it.
TROUBLED = [
    (r'"title": "A", "extra": {}, "year": 1999', Item("a", "A", {"year": 1999}), "attribute extra: a nested value"),
    (r'"title": "A", "extra": {"x": [1]}', Item("a", "A"), "attribute extra: a nested value: left out; allowed: texts"),
    (r'"title": "A", "tags": [["x"]]', Item("a", "A"), "attribute tags: a nested value"),
    (r'"title": "A", "note": "Fun \ud83d"', Item("a", "A"), "attribute note: a text with half of a surrogate pair"),
    (r'"title": "A", "tags": ["x", "\udc00"]', Item("a", "A"), "attribute tags: a text with half"),
    (r'"title": "A", "\ud83d": 1', Item("a", "A"), r"attribute \ud83d: a text with half"),
    (r'"title": "Fun \ud83d"', Item("a", "Fun \ufffd"), "title: half of a surrogate pair"),
    ('"title": ["A"]', Item("a", "a"), "title: a list: the item_id is shown; allowed: texts in UTF-8 and finite"),
    ('"title": {"en": "A"}', Item("a", "a"), "title: a nested value: the item_id is shown"),
    ('"title": 1e400', Item("a", "a"), "title: inf, which is not finite: the item_id is shown"),
    (f'"title": "A", "n": {"9" * 2000}', Item("a", "A"), "attribute n: a whole number of more than 1,200 digits"),
]


@pytest.mark.parametrize(("line", "kept", "said"), TROUBLED)
def test_what_a_bundle_cannot_hold_costs_the_attribute_and_is_named(
    tmp_path: Path, line: str, kept: Item, said: str
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"item_id": "a", {line}}}\n{{"item_id": "b", "title": "B", "year": 2001}}\n', "utf-8")

    catalogue = Catalogue.load(path)

    assert catalogue.items == [kept, Item("b", "B", {"year": 2001})]
    assert [f"line 1, item 'a', {said}" in left_out.line() for left_out in catalogue.left_out] == [True]
    catalogue.save(tmp_path / "items.parquet")
    assert Catalogue.load(tmp_path / "items.parquet") == catalogue


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            '{"item_id": true}',
            "line 1: item_id is True; allowed: a text of 1 to 256 bytes of UTF-8, or a whole number (one with a point only "
            "below 2^53): the row is left out",
        ),
        ('{"item_id": 1e16}', "line 1: item_id is 1e+16; allowed"),
        (r'{"item_id": "\ud83d"}', r"line 1: item_id is '\ud83d'; allowed"),
        ('{"item_id": ""}', "line 1: item_id is ''; allowed"),
        ('{"title": "x"}', "line 1: item_id is None; allowed"),
        ('{"item_id": "' + "x" * 257 + '"}', "allowed: a text of 1 to 256 bytes"),
        ('{"item_id": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: it is nested too deeply"),
    ],
)
def test_a_row_that_no_bundle_can_hold_costs_the_row_and_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{line}\n{{"item_id": "b"}}\n', "utf-8")

    catalogue = Catalogue.load(path)

    assert [item.item_id for item in catalogue] == ["b"]
    assert [said in left_out.line() for left_out in catalogue.left_out] == [True]


def test_what_is_left_out_is_counted_once_for_each_attribute_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(f'{{"item_id": "{i}", "extra": {{}}, "note": [[]]}}\n' for i in range(1500)), "utf-8")

    lines = [left_out.line() for left_out in Catalogue.load(path).left_out]

    assert [line.partition(": left out")[0] for line in lines] == [
        "line 1, item '0', attribute extra: a nested value (and in 1,499 more rows)",
        "line 1, item '0', attribute note: a nested value (and in 1,499 more rows)",
    ]


def test_one_more_row_is_a_row(tmp_path: Path) -> None:
    catalogue = Catalogue([Item(item_id, "?", {"extra": {}}) for item_id in "ab"])

    assert "attribute extra: a nested value (and in 1 more row): left out" in catalogue.left_out[0].line()


def test_names_of_attributes_beyond_the_first_thousand_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    lines = (f'{{"item_id": "{i}", "year": {i}, "only-{i}": 1}}\n' for i in range(1002))
    path.write_text("".join(lines), "utf-8")

    catalogue = Catalogue.load(path)

    assert catalogue.to_table().num_columns == 2 + 1000
    assert catalogue.items[998:1000] == [
        Item("998", "998", {"year": 998, "only-998": 1}),
        Item("999", "999", {"year": 999}),
    ]
    assert [found.line() for found in catalogue.left_out] == [
        "item '999', attribute only-999: it is one of 3 names beyond the first 1,000 (and in 2 more rows): left out; "
        "allowed: 1,000 names of attributes"
    ]
    assert catalogue.merged([]).left_out == ()


@pytest.mark.parametrize(("kind", "bits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)])
def test_ids_that_a_type_of_numbers_cannot_tell_apart_cost_the_row(kind: pa.DataType, bits: int) -> None:
    end = 2**bits
    catalogue = Catalogue.from_table(pa.table({"item_id": pa.array([end - 1, end, end + 2]).cast(kind, safe=False)}))
    assert [item.item_id for item in catalogue] == [str(end - 1)]
    assert len(catalogue.left_out) == 2
    assert f"one with a point only below 2^{bits}" in catalogue.left_out[0].line()


@pytest.mark.parametrize(
    ("kind", "number", "hint"),
    [
        ("s", 1_577_836_800_000, "; it would fit in milliseconds (ms)"),
        ("s", 1_577_836_800_000_000, "; it would fit in microseconds (µs)"),
        ("ms", 1_577_836_800_000_000, "; it would fit in microseconds (µs)"),
        ("us", 1_577_836_800_000_000_000, "; it would fit in nanoseconds (ns)"),
        ("s", 2**62, ""),
        ("s", -(2**62), ""),
        ("ms", -(2**63), ""),
        ("s", 253_402_300_800, "; it would fit in milliseconds (ms)"),
    ],
)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_timestamp_that_is_none_in_the_unit_of_its_type_is_left_out_and_the_unit_named(
    kind: str, number: int, hint: str, zone: str | None
) -> None:
    """Arrow lets a number overflow into any date, and Python knows no year after 9999."""
    last = (253_402_300_800 - 1) * {"s": 1, "ms": 10**3, "us": 10**6}[kind]
    columns = {"item_id": ["a", "b", "c"], "released": pa.array([last, number, None], pa.timestamp(kind, zone))}
    catalogue = Catalogue.from_table(pa.table(columns))
    offset = "" if zone is None else "+00:00"
    assert [item.attributes for item in catalogue] == [{"released": f"9999-12-31T23:59:59{offset}"}, {}, {}]
    (line,) = [found.line() for found in catalogue.left_out]
    assert line.startswith(f"row 1, item 'b', attribute released: not readable (timestamp[{kind}")
    assert f"] outside the years 1 to 9999{hint}): left out" in line


def test_parquet_columns_of_foreign_types_become_plain_values(tmp_path: Path) -> None:
    columns = {
        "item_id": ["a", "b"],
        "price": pa.array([Decimal("12.50"), Decimal("10.00")], pa.decimal128(9, 2)),
        "sku": pa.array([Decimal("12345678901234567890"), None], pa.decimal128(30, 0)),
        "extra": [{"x": 1}, None],
        "kind": pa.array(["movie", "show"]).dictionary_encode(),
        "raw": pa.array([b"text", b"\xff"]),
        "length": pa.array([90, None], pa.duration("s")),
        "seen": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
        "until": pa.array([2**30, None], pa.date32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")

    catalogue = Catalogue.load(tmp_path / "items.parquet")

    assert catalogue.items[0].attributes == {
        "price": 12.5, "sku": "12345678901234567890", "kind": "movie", "raw": "text", "length": 90.0,
        "seen": "2023-11-14T22:13:20.123456",
    }  # fmt: skip
    assert catalogue.items[1].attributes == {"price": 10, "kind": "show"}
    assert [(found.attribute, found.first) for found in catalogue.left_out] == [
        ("extra", "row 0, item 'a'"),
        ("until", "row 0, item 'a'"),
        ("raw", "row 1, item 'b'"),
    ]


def test_items_made_in_python_are_checked_like_those_of_a_file() -> None:
    catalogue = Catalogue([Item("a", "A", {"year": np.int32(1999), "extra": object(), "title": "B", "none": None})])

    assert catalogue.items == [Item("a", "A", {"year": 1999})]
    assert [found.line().partition(": left out")[0] for found in catalogue.left_out] == [
        "item 0, item 'a', attribute extra: a value of type object",
        "item 0, item 'a', attribute title: not a name for an attribute",
    ]
    with pytest.raises(DataError, match="1 to 256 bytes of UTF-8"):
        Catalogue([Item("\ud83d", "?")])


ATTRIBUTES = st.dictionaries(
    st.sampled_from(["kind", "year", "genres", "live", "released", "maturity", "regions", "else"]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        st.sampled_from(["movie", "1999", "1999.0", "true", "0", "2024-05-01", "x", "\ud83d", ""]),
        st.binary(max_size=3),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["x", "de", "\ud83d"])),
            lambda inner: st.one_of(
                st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=1)
            ),
            max_leaves=3,
        ),
    ),
)


@given(st.lists(ATTRIBUTES, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_whatever_attributes_hold_a_bundle_takes_them_and_they_mean_the_same_after_it(
    rows: list[dict[str, Any]],
) -> None:
    """The model trains on the catalogue as it is in memory, and is served with the file."""
    catalogue = Catalogue(Item(f"item-{i}", "T", attributes) for i, attributes in enumerate(rows))
    with tempfile.TemporaryDirectory() as folder:
        catalogue.save(Path(folder) / "items.parquet")
        loaded = Catalogue.load(Path(folder) / "items.parquet")

    before, after = (
        ItemTable(READING, Vocabulary.build([i.item_id for i in catalogue]), c) for c in (catalogue, loaded)
    )

    assert loaded.left_out == ()
    np.testing.assert_array_equal(before.codes, after.codes)
    np.testing.assert_array_equal(before.multi["genre"], after.multi["genre"])
    np.testing.assert_array_equal(before.moment("released"), after.moment("released"))
    np.testing.assert_array_equal(before.filter_column("live"), after.filter_column("live"))
    np.testing.assert_array_equal(before.filter_column("maturity"), after.filter_column("maturity"))
    ours, theirs = before.filter_column("regions"), after.filter_column("regions")
    assert {key: column.tolist() for key, column in ours.items()} == {key: c.tolist() for key, c in theirs.items()}


READING = parse_domain(
    """
name = "reading"
[history]
window = 4
[[field]]
name = "kind"
kind = "categorical"
source = "catalogue"
values = ["movie", "true", "0", "1999"]
intent = true
[[field]]
name = "era"
kind = "bucketed"
source = "catalogue"
key = "year"
edges = [0, 1e5]
[[field]]
name = "genre"
kind = "multi_label"
source = "catalogue"
key = "genres"
values = ["x", "0", "true", "1999"]
[[filter]]
kind = "available"
key = "live"
[[filter]]
kind = "at_most"
key = "maturity"
event_key = "m"
[[filter]]
kind = "contains"
key = "regions"
event_key = "r"
""",
    "reading.toml",
)


def test_merging_replaces_known_items_in_place_and_appends_new_ones() -> None:
    newer = [Item("b", "Beta II", {}), Item("c", "Gamma", {})]

    merged = Catalogue(ITEMS).merged(newer)

    assert [item.title for item in merged] == ["Alpha", "Beta II", "Ünï", "Gamma"]
    assert merged.get("c") == newer[1]
    assert merged.get("d") is None
