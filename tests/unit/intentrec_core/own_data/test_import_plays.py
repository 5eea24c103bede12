"""Tables of others become plays: whatever they look like, nothing is guessed silently and no row is lost without a reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.own_data import foreign_table
from intentrec_core.own_data import import_plays as import_plays_module
from intentrec_core.own_data.foreign_table import CsvOptions, ForeignTable
from intentrec_core.own_data.import_plays import ImportedPlays, PlaysLayout, import_plays, lay_out_plays
from intentrec_core.own_data.rejected_rows import RejectedRows
from intentrec_core.own_data.time_units import TimeUnit
from intentrec_core.plays.table import check_plays, in_schema

T = 1_433_221_332_117
END_MS = 1_800_000_000_000
HEADER = "timestamp,visitorid,event,itemid,transactionid\n"


class Imported:
    """The outcome of an import: what each column was taken for, the plays, and the rejected rows as they are in the file."""

    def __init__(self, path: Path, csv: CsvOptions | None = None, **options: Any) -> None:
        given = options.pop("given", {})
        table = ForeignTable(path, csv)
        self.line = table.line
        self.layout: PlaysLayout = lay_out_plays(table, given, end_ms=END_MS, **options)[0]
        out = path.parent / "out"
        out.mkdir(exist_ok=True)
        with RejectedRows(out / "rejected.jsonl") as rejected:
            self.found: ImportedPlays = import_plays(table, self.layout, out / "plays.parquet", rejected)
        self.summary = rejected.lines()
        self.table = pq.read_table(out / "plays.parquet")
        self.plays: list[dict[str, Any]] = self.table.to_pylist()
        file = out / "rejected.jsonl"
        self.rejected = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def column(self, name: str) -> list[Any]:
        return [play[name] for play in self.plays]


def written(folder: Path, text: str | bytes, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_events_of_retailrockets_shape_need_no_option(tmp_path: Path) -> None:
    done = Imported(written(tmp_path, f"{HEADER}{T},257597,view,355908,\n{T + 1},992329,transaction,248676,4000\n"))
    assert done.layout.roles.columns == {"user": "visitorid", "item": "itemid", "time": "timestamp", "action": "event"}
    assert done.layout.context == ("transactionid",)
    assert done.column("user_id") == ["257597", "992329"]
    assert done.column("item_id") == ["355908", "248676"]
    assert done.column("ts_ms") == [T, T + 1]
    assert done.column("action") == ["view", "transaction"]
    assert done.column("context") == [[], [("transactionid", "4000")]]
    assert (done.found.num_plays, done.found.num_members, done.found.num_repeats) == (2, 2, 0)
    assert done.found.items.column("item_id").to_pylist() == ["355908", "248676"]
    assert done.rejected == []
    check_plays(done.table)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_byte_order_marks_are_told(tmp_path: Path, separator: str, encoding: str) -> None:
    rows = [["time", "user", "item", "note"], [str(T), "u1", "é", '"a,b;c\td|e"'], [str(T), "u2", "i2", '"two\nlines"']]
    text = "\n".join(separator.join(row) for row in rows)
    done = Imported(written(tmp_path, text.encode(encoding)))
    assert done.column("item_id") == ["é", "i2"]
    assert done.column("context") == [[("note", "a,b;c\td|e")], [("note", "two\nlines")]]
    assert done.rejected == []


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, f"time,user,item\n{T},u1,é\n".encode("latin-1"))
    assert Imported(path, CsvOptions(encoding="latin-1")).column("item_id") == ["é"]
    done = Imported(written(tmp_path, f"time,user,item\n{T},u1,é\n{T},u1,i\n".encode("latin-1")))
    assert [row["row"] for row in done.rejected] == [2]
    assert "is not UTF-8" in done.rejected[0]["reason"]


def test_quotes_can_be_characters_as_any_other(tmp_path: Path) -> None:
    path = written(tmp_path, f'time,user,item\n{T},u1,6" nail\n{T},u2,"x\n')
    assert Imported(path, CsvOptions(quote="")).column("item_id") == ['6" nail', '"x']


def test_a_file_without_a_header_is_refused_until_it_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, f"{T},u1,i1\n{T + 1},u2,i2\n")
    with pytest.raises(DataError, match=r"looks like data.*--no-header"):
        Imported(path)
    given = {"time": "column_1", "user": "column_2", "item": "column_3"}
    done = Imported(path, CsvOptions(has_header=False), given=given)
    assert done.column("user_id") == ["u1", "u2"]


def test_gzipped_csv_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(f"time;user;item\n{T};u1;i1\n".encode()), "events.csv.gz")
    assert Imported(path).column("ts_ms") == [T]


def test_json_lines_of_any_keys_are_plays(tmp_path: Path) -> None:
    rows = [
        {"ts": T, "user_id": 7, "item_id": "i1", "context": {"region": "eu", "age": 12}, "tags": ["a"]},
        {"ts": T + 1, "user_id": 7.0, "item_id": 2, "device": {"kind": "tv"}, "ok": True},
    ]
    text = "\n".join(["", *map(json.dumps, rows), "{", "[1]"])
    done = Imported(written(tmp_path, text, "plays.jsonl"))
    assert done.column("user_id") == ["7", "7"]
    assert done.column("item_id") == ["i1", "2"]
    assert done.column("context") == [[("region", "eu"), ("age", "12")], [("device.kind", "tv"), ("ok", "true")]]
    assert done.layout.lists == ("tags",)
    assert [(row["row"], row["line"]) for row in done.rejected] == [(4, "{"), (5, "[1]")]


def test_names_that_come_later_in_json_lines_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_table, "_BLOCK_ROWS", 1)
    rows = [
        {"ts": T, "user": "u", "item": "i"},
        {"ts": T + 1, "user": "u", "item": "i", "late": "x"},
        {"ts": T + 2, "user": "u"},
    ]
    done = Imported(written(tmp_path, "\n".join(map(json.dumps, rows)), "plays.jsonl"))
    assert done.column("context") == [None, [("late", "x")]]
    assert [row["reason"] for row in done.rejected] == ["item is empty"]


def test_parquet_keeps_what_its_types_say(tmp_path: Path) -> None:
    table = pa.table(
        {
            "at": pa.array([T, T + 1], pa.timestamp("ms")),
            "user_id": pa.array([1.0, 2.0]),
            "item_id": pa.array(["i1", "i2"]).dictionary_encode(),
            "watch_time_ms": [1500, None],
            "context": pa.array([[("a", "1")], [("b", "2")]], pa.map_(pa.string(), pa.string())),
            "seen": pa.array([{"on": "tv"}, None]),
        }
    )
    pq.write_table(table, tmp_path / "plays.parquet")
    done = Imported(tmp_path / "plays.parquet", given={"time": "at"})
    assert done.column("user_id") == ["1", "2"]
    assert done.column("ts_ms") == [T, T + 1]
    assert done.column("duration_s") == [1.5, None]
    assert done.column("context") == [[("seen.on", "tv"), ("a", "1")], [("b", "2")]]


@pytest.mark.parametrize(
    ("cells", "unit"),
    [
        ([T // 1000, T // 1000 + 1], TimeUnit.SECONDS),
        ([f"{T / 1000:.3f}"], TimeUnit.SECONDS),
        ([T], TimeUnit.MILLISECONDS),
        ([f"{T}.0"], TimeUnit.MILLISECONDS),
        ([T * 1000 + 999], TimeUnit.MICROSECONDS),
        ([T * 1_000_000 + 999_999], TimeUnit.NANOSECONDS),
        (["2015-06-02T05:02:12.117Z"], TimeUnit.ISO),
        (["2015-06-02 07:02:12.117+02:00"], TimeUnit.ISO),
        (["2015-06-02 05:02:12.117 UTC"], TimeUnit.ISO),
        (["2015/06/02 05:02:12.117"], TimeUnit.ISO),
    ],
)
def test_the_unit_of_times_is_told(tmp_path: Path, cells: Sequence[object], unit: TimeUnit) -> None:
    done = Imported(written(tmp_path, "time,user,item\n" + "".join(f"{cell},u,i\n" for cell in cells)))
    assert done.layout.time.unit is unit
    whole = unit is TimeUnit.SECONDS and len(cells) == 2
    assert done.column("ts_ms")[0] == (T // 1000 * 1000 if whole else T)


def test_times_written_another_way_are_read_by_their_format(tmp_path: Path) -> None:
    path = written(tmp_path, "time,user,item\n02.06.2015 05:02,u,i\n")
    with pytest.raises(DataError, match=r"events.csv: no time can be read: time is '02.06.2015 05:02'.*--time-format"):
        Imported(path)
    assert Imported(path, time_format="%d.%m.%Y %H:%M").column("ts_ms") == [T // 60_000 * 60_000]


def test_dates_that_are_whole_numbers_are_read_by_their_format(tmp_path: Path) -> None:
    pq.write_table(pa.table({"time": [20150602], "user": ["u"], "item": ["i"]}), tmp_path / "plays.parquet")
    done = Imported(tmp_path / "plays.parquet", time_format="%Y%m%d")
    assert done.column("ts_ms") == [T // 86_400_000 * 86_400_000]


def test_a_row_in_another_unit_is_rejected_with_the_unit_that_fits(tmp_path: Path) -> None:
    done = Imported(written(tmp_path, f"time,user,item\n{T},u,i\n{T + 1},u,j\n{T // 1000},u,k\n{END_MS},u,l\n"))
    assert done.column("item_id") == ["i", "j"]
    assert [row["row"] for row in done.rejected] == [4, 5]
    assert "no time in milliseconds (ms); it would fit in seconds (s)" in done.rejected[0]["reason"]


def test_rejected_rows_are_kept_with_their_row_and_the_reason(tmp_path: Path) -> None:
    rows = [
        f"{T},u1,view,i1,",
        f'{T},u2,view,i1,"two\nlines"',
        f"{T},u1,view",
        f"{T},,view,i1,",
        f",u1,view,i1,{T}",
        f"{T},{'u' * 257},view,i1,",
        f'{T},"u\n1",view,i1,',
        f"{T},u3,view,i1,7",
    ]
    done = Imported(written(tmp_path, HEADER + "\n".join(rows)))
    assert done.column("user_id") == ["u1", "u2", "u3"]
    reasons = {row["row"]: row["reason"] for row in done.rejected}
    assert reasons == {
        4: "3 cells in place of 5: is a separator in a cell that is not quoted?",
        5: "visitorid is empty",
        6: "timestamp is empty",
        7: "visitorid has 257 bytes; allowed: 1 to 256",
        8: "visitorid has a line break: is a quote not closed? Where quotes are characters as any other, --quote none",
    }
    assert done.rejected[0]["line"] == f"{T},u1,view"
    assert next(row for row in done.rejected if row["row"] == 5)["values"] == {
        "timestamp": str(T),
        "event": "view",
        "itemid": "i1",
    }
    assert len(done.summary) == 5
    assert all(line.startswith("1 × ") for line in done.summary)


def test_rows_are_numbered_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_table, "_BLOCK_BYTES", 64)
    rows = [f"{T + i},u{i},i" if i % 7 else f"{T},u{i}" if i % 2 else f"bad,u{i},i" for i in range(100)]
    rows[3::7] = [""] * len(rows[3::7])
    done = Imported(written(tmp_path, "time,user,item\n" + "\n".join(rows)))
    assert {row["row"] for row in done.rejected} == {i + 2 for i in range(0, 100, 7)}
    assert done.column("user_id") == [f"u{i}" for i in range(100) if i % 7 not in (0, 3)]


@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-16"), ("\r", "utf-8-sig")])
def test_rows_have_the_number_that_a_spreadsheet_shows(tmp_path: Path, end: str, encoding: str) -> None:
    """Blank lines are rows there, and a header whose names have line breaks is one."""
    lines = ["", '"played', 'at","the', 'user",item', "", f"{T},u1,i", "", f"{T},u2", ",,", f'{T},,"i', 'j"', f"{T},,i"]
    path = written(tmp_path, end.join(lines).encode(encoding))
    done = Imported(path, given={"time": "played at", "user": "the user"})
    assert done.column("user_id") == ["u1"]
    assert {row["row"]: row["reason"].partition(":")[0] for row in done.rejected} == {
        6: "2 cells in place of 3",
        8: "the user is empty",
        9: "the user is empty",
    }


def test_rows_without_a_header_are_numbered_from_the_first_line(tmp_path: Path) -> None:
    path = written(tmp_path, f"\n{T},u1,i1\n\n{T},u2\n\n")
    given = {"time": "column_1", "user": "column_2", "item": "column_3"}
    done = Imported(path, CsvOptions(has_header=False), given=given)
    assert done.column("user_id") == ["u1"]
    assert [row["row"] for row in done.rejected] == [4]


def test_what_is_wrong_in_many_rows_is_found_a_column_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []

    def counted(rows: pa.Table, **limits: int) -> pa.Table:
        checked.append(rows.num_rows)
        return in_schema(rows, **limits)

    monkeypatch.setattr(import_plays_module, "in_schema", counted)
    longest = [str(T).encode(), b"u" * 256, "é".encode() * 128, b"31622400", "é".encode() * 256, "é".encode() * 1024]
    wrong = [
        (1, b"u" * 257, "user has 257 bytes; allowed: 1 to 256"),
        (1, b"\xff", "user is '\\\\xff', which is not UTF-8"),
        (2, "é".encode() * 129, "item has 258 bytes; allowed: 1 to 256"),
        (3, b"-0.5", "lasted is '-0.5', -0.5 s; allowed: 0 to 31,622,400 s, in the unit that its name ends with"),
        (3, b"31622500", "lasted is '31622500', 3.16225e+07 s"),
        (4, b"s" * 257, "session has 257 characters; allowed: at most 256"),
        (5, b"n" * 1025, "note has 1,025 characters; allowed: at most 1,024. If it is not needed, --leave-out note"),
        (5, b"\xe9", "note is '\\\\xe9', which is not UTF-8; allowed: texts in UTF-8, or CSV in the encoding"),
    ]
    rows = [[*longest[:at], cell, *longest[at + 1 :]] for at, cell, _ in wrong]
    text = b"\n".join(map(b",".join, [[b"time,user,item,lasted,session,note"], *[longest, *rows] * 20]))
    done = Imported(written(tmp_path, text), given={"duration": "lasted"})
    assert checked == [20]
    assert done.found.num_plays == 20
    assert len(done.rejected) == 20 * len(wrong)
    for row in done.rejected:
        assert row["reason"].startswith(wrong[(row["row"] - 3) % (len(wrong) + 1)][2])


def test_numbers_with_a_fraction_are_no_ids(tmp_path: Path) -> None:
    decimals = [Decimal(text) for text in ("1", "2", "1.5", "4")]
    table = pa.table({"time": [T] * 4, "user": [1.0, 2.5, 3.0, 4.0], "item": pa.array(decimals)})
    pq.write_table(table, tmp_path / "plays.parquet")
    done = Imported(tmp_path / "plays.parquet")
    assert done.column("user_id") == ["1", "4"]
    assert {row["row"]: row["reason"] for row in done.rejected} == {
        2: "user is 2.5, of type double; allowed: texts, or whole numbers below 9,007,199,254,740,992, up to which this type "
        "holds all",
        3: "item_id: 1.5, a number; allowed: texts, or whole numbers",
    }


def test_lists_that_come_later_in_json_lines_are_single_values_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_table, "_BLOCK_ROWS", 1)
    said = [("u", "x", 1), (["v"], ["y"], [2]), (["a", "b"], "z", 3), ("w", ["y", "z"], 4)]
    rows = [{"ts": T, "user": user, "item": "i", "note": note, "price": price} for user, note, price in said]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "plays.jsonl")
    done = Imported(path, of_items=["price"])
    assert done.column("user_id") == ["u", "v", "w"]
    assert done.column("context") == [[("note", "x")], [("note", "y")], []]
    assert done.found.items.to_pylist() == [{"item_id": "i", "price": "4"}]
    assert [(row["row"], row["reason"]) for row in done.rejected] == [(3, "user is ['a', 'b']; allowed: one value")]


def test_the_same_row_is_the_same_play_in_every_import(tmp_path: Path) -> None:
    row, other = f"{T},u1,view,i1,\n", f"{T},u1,addtocart,i1,\n"
    first = Imported(written(tmp_path, HEADER + row + other + row))
    assert first.found.num_repeats == 1
    assert first.column("event_id")[0] == first.column("event_id")[2] != first.column("event_id")[1]
    again = Imported(written(tmp_path, HEADER + other + row))
    assert again.column("event_id") == first.column("event_id")[1:]


def test_the_id_of_a_row_depends_on_nothing_but_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"ts": T, "user": "u", "item": "i", "price": 7, "tags": ["a"]},
        {"ts": T + 1, "user": "u", "item": "j", "late": "x", "price": 7.5, "tags": "b"},
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "plays.jsonl")
    ids = Imported(path).column("event_id")
    assert len(set(ids)) == 2
    assert Imported(path, leave_out=["price"]).column("event_id") == ids
    assert Imported(path, of_items=["price"]).column("event_id") == ids
    assert Imported(path, given={"session": "price"}).column("event_id") == ids
    monkeypatch.setattr(foreign_table, "_BLOCK_ROWS", 1)
    assert Imported(path).column("event_id") == ids
    said = [{"ts": T, "user": "u", "item": "i", name: "x"} for name in ("a", "b")]
    assert Imported(written(tmp_path, "\n".join(map(json.dumps, said)), "names.jsonl")).found.num_repeats == 0


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("DURATION_MS", 1.5), ("durationms", 1.5), ("playTimeMs", 1.5), ("msPlayed", 1.5), ("durationMillis", 1.5),
     ("Duration_Minutes", 90_000), ("duration_s", 1_500), ("durations", 1_500)],
)  # fmt: skip
def test_the_name_of_a_duration_says_its_unit_however_it_is_spelled(tmp_path: Path, name: str, seconds: float) -> None:
    path = written(tmp_path, f"time,user,item,{name}\n{T},u,i,1500\n")
    assert Imported(path, given={"duration": name}).column("duration_s") == [seconds]


def test_event_ids_of_the_file_are_kept(tmp_path: Path) -> None:
    done = Imported(written(tmp_path, f"event_id,time,user,item\ne1,{T},u,i\n,{T},u,i\n"))
    assert done.column("event_id") == ["e1"]
    assert done.rejected[0]["reason"] == "event_id is empty"


def test_what_the_plays_say_of_items_goes_to_the_items(tmp_path: Path) -> None:
    """As REES46's events: the category and the brand of a product stand in every event, the session is the member's."""
    rows = [
        f"2019-10-01 00:{i % 60:02d}:00 UTC,view,{i % 20},cat{i % 5},{'brand' + str(i % 4) if i % 3 else ''},u{i // 2},s{i // 2}"
        for i in range(400)
    ]
    header = "event_time,event_type,product_id,category_code,brand,user_id,user_session\n"
    path = written(tmp_path, header + "\n".join(rows))
    done = Imported(path, of_items=None)
    assert done.layout.of_items == ("category_code", "brand")
    assert done.layout.roles.columns["session"] == "user_session"
    assert done.layout.context == ()
    items = {row["item_id"]: row for row in done.found.items.to_pylist()}
    assert items["7"] == {"item_id": "7", "category_code": "cat2", "brand": "brand3"}
    assert Imported(path, of_items=()).layout.context == ("category_code", "brand")
    assert Imported(path, of_items=["brand"]).layout.of_items == ("brand",)


def test_a_column_of_the_member_is_none_of_the_item(tmp_path: Path) -> None:
    """Each member plays one item again and again, in two sessions: the item's plays agree on the country, its members do not."""
    rows = [f"{T + i},u{i % 240},i{i % 6},country{i % 240 // 6 % 4},kind{i % 6}" for i in range(960)]
    path = written(tmp_path, "time,user,item,country,kind\n" + "\n".join(rows))
    assert Imported(path, of_items=None).layout.of_items == ("kind",)


def test_a_column_that_was_misspelt_is_named_with_the_likely_one(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}{T},u,view,i,\n")
    with pytest.raises(
        ConfigError, match=r"--user visitor_id: events.csv has no such column.*did you mean visitorid\?"
    ):
        Imported(path, given={"user": "visitor_id"})
    with pytest.raises(ConfigError, match="given as user and as item"):
        Imported(path, given={"user": "itemid", "item": "itemid"})


def test_a_play_needs_a_column_for_each_part(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"events.csv: no column says who played: name it with --user COLUMN; .* a, item, time"
    ):
        Imported(written(tmp_path, f"a,item,time\nx,i,{T}\n"))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"time,user,item\n", "no row that can be read"),
        ("twice.csv", b"time,user,user\n1,2,3\n", "column user occurs 2 times"),
        ("no.parquet", b"no", "no.parquet cannot be read as Parquet"),
        ("none.jsonl", b"{\n", "none.jsonl has no row that can be read: row 1: no JSON"),
        ("cut.csv.gz", gzip.compress(b"time,user,item\n" * 9, mtime=0)[:-9], "cut.csv.gz cannot be read"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what) as refused:
        Imported(written(tmp_path, content, name))
    assert "\n" not in str(refused.value)


def test_a_failed_import_leaves_the_plays_of_the_last_one(tmp_path: Path) -> None:
    kept = Imported(written(tmp_path, f"time,user,item\n{T},u,i\n")).table
    with pytest.raises(DataError, match=r"no row is a play: 1 × no user"):
        Imported(written(tmp_path, f"time,user,item\n{T},,i\n"))
    assert pq.read_table(tmp_path / "out" / "plays.parquet") == kept
    assert not list((tmp_path / "out").glob(".writing-*"))
