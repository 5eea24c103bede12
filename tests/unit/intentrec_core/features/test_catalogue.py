"""The catalogue: it is read back as written, and invalid values are named."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item

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


@pytest.mark.parametrize("item_id", ["", "x" * 257, "é" * 129])
def test_an_id_no_play_could_carry_is_refused(item_id: str) -> None:
    with pytest.raises(DataError, match="1 to 256 bytes"):
        Catalogue([Item(item_id, "?")])


def test_an_id_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match="'a' occurs twice"):
        Catalogue([ITEMS[0], ITEMS[0]])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"item_id": "a"}\n{"item_id": }\n', "line 2: not JSON"),
        ('["a"]\n', "line 1: not a JSON object"),
        ('{"item_id": 7}\n', "line 1: item_id is 7"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(text, "utf-8")

    with pytest.raises(DataError, match=complaint) as raised:
        Catalogue.load(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    path.write_bytes(b"nothing of the kind")

    with pytest.raises(DataError, match=r"items\.parquet"):
        Catalogue.load(path)


def test_an_attribute_of_several_types_is_named() -> None:
    mixed = Catalogue([Item("a", "A", {"year": 1999}), Item("b", "B", {"year": [1]})])

    with pytest.raises(DataError, match="attribute 'year'"):
        mixed.to_table()


def test_merging_replaces_known_items_in_place_and_appends_new_ones() -> None:
    newer = [Item("b", "Beta II", {}), Item("c", "Gamma", {})]

    merged = Catalogue(ITEMS).merged(newer)

    assert [item.title for item in merged] == ["Alpha", "Beta II", "Ünï", "Gamma"]
    assert merged.get("c") == newer[1]
    assert merged.get("d") is None
