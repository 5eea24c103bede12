"""Tables of items become a catalogue: lists, numbers and truth values as such, one row an item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.own_data import foreign_table
from intentrec_core.own_data.foreign_table import ForeignTable
from intentrec_core.own_data.import_items import ImportedItems, import_items, items_of_plays, lay_out_items
from intentrec_core.own_data.rejected_rows import RejectedRows

HEADER = "movieId;title;genres;price;code;on_sale\n"


def imported(path: Path, **options: Any) -> tuple[ImportedItems, list[dict[str, Any]]]:
    table = ForeignTable(path)
    layout, _ = lay_out_items(table, options.pop("given", {}), **options)
    with RejectedRows(path.parent / "rejected.jsonl") as rejected:
        found = import_items(table, layout, path.parent / "items.parquet", rejected)
    assert Catalogue.load(path.parent / "items.parquet") == found.catalogue
    file = path.parent / "rejected.jsonl"
    return found, [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def items_file(folder: Path, text: str, name: str = "items.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_become_what_they_mean(tmp_path: Path) -> None:
    genres = ["Drama|Comedy", "Drama", "Comedy|Action", "Action", "Drama|Action"] * 2
    rows = [
        f"{n};Film {n}, part | two;{genre};{n}.5;00{n};{str(n % 2 == 0).lower()}\n" for n, genre in enumerate(genres)
    ]
    found, rejected = imported(items_file(tmp_path, HEADER + "".join(rows) + "99;Bare;;;;\n"))
    item = found.catalogue.get("2")
    assert item is not None
    assert item.title == "Film 2, part | two"
    assert item.attributes == {"genres": ["Comedy", "Action"], "price": 2.5, "code": "002", "on_sale": True}
    bare = found.catalogue.get("99")
    assert bare is not None
    assert bare.attributes == {}
    assert rejected == []


@pytest.mark.parametrize("cell", ['["a", "b c"]', "['a', 'b c']", "[a, b c]"])
def test_lists_written_out_are_lists(tmp_path: Path, cell: str) -> None:
    found, _ = imported(items_file(tmp_path, f"id\ttags\n1\t{cell}\n"), lists={"tags": "["})
    assert found.catalogue.items[0].attributes == {"tags": ["a", "b c"]}


def test_texts_with_commas_are_no_lists_but_can_be(tmp_path: Path) -> None:
    text = "id;plot\n" + "".join(f"{n};Once {n}, it was {n * 7}, and so on {n}\n" for n in range(20))
    path = items_file(tmp_path, text)
    assert imported(path)[0].catalogue.items[1].attributes == {"plot": "Once 1, it was 7, and so on 1"}
    found, _ = imported(path, lists={"plot": ","})
    assert found.catalogue.items[1].attributes == {"plot": ["Once 1", "it was 7", "and so on 1"]}
    told = items_file(tmp_path, "id;of\n" + "".join(f"{n};a|b\n" for n in range(9)), "told.csv")
    assert imported(told, lists={"of": ""})[0].catalogue.items[0].attributes == {"of": "a|b"}


def test_the_last_row_of_an_item_counts(tmp_path: Path) -> None:
    found, rejected = imported(items_file(tmp_path, HEADER + "1;Old;;;;\n2;B;;;;\n1;New;;;;\n"))
    assert [(item.item_id, item.title) for item in found.catalogue] == [("2", "B"), ("1", "New")]
    assert found.num_repeats == 1
    assert rejected == []


def test_rows_without_a_valid_id_are_rejected(tmp_path: Path) -> None:
    found, rejected = imported(items_file(tmp_path, HEADER + f"1;A;;;;\n;B;;;;\n{'x' * 257};C;;;;\n4;D\n"))
    assert len(found.catalogue) == 1
    assert [row["row"] for row in rejected] == [5, 3, 4]  # the row that cannot be split is found first


def test_a_title_that_is_no_utf8_is_shown_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_bytes("id;title;of\n1;é;ö\n".encode("latin-1"))
    found, _ = imported(path)
    assert (found.catalogue.items[0].title, found.catalogue.items[0].attributes) == ("\ufffd", {"of": "\ufffd"})


def test_parquet_and_json_lines_keep_their_types(tmp_path: Path) -> None:
    rows = [
        {"sku": "a", "headline": "A", "tags": ["x", "y"], "n": 1},
        {"sku": "b", "headline": "B", "tags": "z", "ok": True},
    ]
    lines, _ = imported(items_file(tmp_path, "\n".join(map(json.dumps, rows)), "items.jsonl"))
    assert [item.attributes for item in lines.catalogue] == [{"tags": ["x", "y"], "n": 1}, {"tags": ["z"], "ok": True}]
    pq.write_table(pa.table({"asin": [7], "name": ["A"], "tags": [["x"]]}), tmp_path / "given.parquet")
    of_parquet, _ = imported(tmp_path / "given.parquet")
    assert [(item.item_id, item.title, item.attributes) for item in of_parquet.catalogue] == [
        ("7", "A", {"tags": ["x"]})
    ]


def test_a_column_whose_type_changes_is_the_same_however_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"sku": 1, "n": 1, "tags": ["x"], "ok": True, "price": 2**53 + 1, "stars": 4},
        {"sku": "b", "n": "many", "tags": "y", "ok": 1, "price": 0.5, "stars": 4.5},
        {"sku": "c", "n": None, "tags": [], "new": [7]},
        {"sku": "d", "n": 0.5, "tags": [3, None], "ok": False, "new": "z"},
    ]
    path = items_file(tmp_path, "\n".join(map(json.dumps, rows)), "items.jsonl")
    whole, _ = imported(path)
    assert [item.attributes for item in whole.catalogue] == [
        {"n": "1", "tags": ["x"], "ok": "true", "price": 2.0**53, "stars": 4.0},
        {"n": "many", "tags": ["y"], "ok": "1", "price": 0.5, "stars": 4.5},
        {"tags": [], "new": ["7"]},
        {"n": "0.5", "tags": ["3"], "ok": "false", "new": ["z"]},
    ]
    for num in (1, 2, 3):
        monkeypatch.setattr(foreign_table, "_BLOCK_ROWS", num)
        assert imported(path)[0].catalogue == whole.catalogue


def test_ids_and_titles_that_become_lists_later_are_single_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_table, "_BLOCK_ROWS", 1)
    rows = [
        {"sku": "a", "headline": "A"},
        {"sku": ["b"], "headline": ["B"]},
        {"sku": "c", "headline": ["C", "D"]},
        {"sku": ["d", "e"], "headline": "E"},
    ]
    found, rejected = imported(items_file(tmp_path, "\n".join(map(json.dumps, rows)), "items.jsonl"))
    assert [(item.item_id, item.title) for item in found.catalogue] == [("a", "A"), ("b", "B"), ("c", "c")]
    assert [row["row"] for row in rejected] == [4]


def test_items_of_plays_alone_have_their_attributes(tmp_path: Path) -> None:
    items = pa.table({"item_id": ["a", "b"], "price": ["1.5", None], "brand": ["x", "y"]})
    catalogue = items_of_plays(items, tmp_path / "items.parquet")
    assert catalogue == Catalogue.load(tmp_path / "items.parquet")
    assert [(item.title, item.attributes) for item in catalogue] == [
        ("a", {"price": 1.5, "brand": "x"}),
        ("b", {"brand": "y"}),
    ]


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    path = items_file(tmp_path, "a;b\n1;2\n")
    with pytest.raises(
        ConfigError, match=r"no column says which item it is: name it with --item COLUMN; the columns are a, b"
    ):
        imported(path)
    with pytest.raises(ConfigError, match=r"--list c: items.csv has no such column"):
        imported(path, given={"item": "a"}, lists={"c": ","})
    with pytest.raises(DataError, match="no row is an item: 1 × an item without a valid id"):
        imported(items_file(tmp_path, "id;b\n;2\n"))
