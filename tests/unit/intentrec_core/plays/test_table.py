"""Tables of plays: the schema, its order and what is refused."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pyarrow as pa
import pytest

from intentrec_core.errors import DataError
from intentrec_core.plays.table import PLAYS, PlayRow, check_plays, play_rows, plays_table, sort_plays

NOW_MS = 1_772_396_100_000
ROWS = [
    PlayRow("e1", "u1", "i9", 2000, "play", 1.5, "s1", {"device": "tv", "region": "de"}),
    PlayRow("e2", "u2", "i5", 1000),
    PlayRow("e3", "u1", "i1", 2000, context={}),
]


def test_rows_survive_the_table() -> None:
    table = plays_table(ROWS)

    assert table.schema == PLAYS
    assert list(play_rows(table, batch_rows=2)) == ROWS


def test_no_rows_make_an_empty_table() -> None:
    assert plays_table([]).schema == PLAYS


def test_equal_times_keep_their_order() -> None:
    assert sort_plays(plays_table(ROWS)).column("event_id").to_pylist() == ["e2", "e1", "e3"]


def test_optional_columns_may_be_absent_and_foreign_ones_are_dropped() -> None:
    table = pa.table({"event_id": ["e"], "user_id": ["u"], "item_id": ["i"], "ts_ms": pa.array([NOW_MS]), "x": [1]})

    assert list(play_rows(check_plays(table))) == [PlayRow("e", "u", "i", NOW_MS)]


@pytest.mark.parametrize(
    ("column", "values", "complaint"),
    [
        ("user_id", None, "column user_id is missing"),
        ("item_id", [None], "item_id has 1 nulls"),
        ("ts_ms", ["now"], "column ts_ms: row 0: 'now' cannot be read"),
        ("ts_ms", [NOW_MS // 1000], r"column ts_ms: row 0: .* fit in seconds \(s\)"),
    ],
)
def test_a_required_column_that_cannot_be_used_is_named(
    column: str, values: list[object] | None, complaint: str
) -> None:
    columns: dict[str, list[object]] = {"event_id": ["e"], "user_id": ["u"], "item_id": ["i"], "ts_ms": [NOW_MS]}
    columns.pop(column)
    if values is not None:
        columns[column] = values

    with pytest.raises(DataError, match=complaint):
        check_plays(pa.table(columns))


def test_a_duration_that_is_nan_is_missing() -> None:
    table = plays_table(ROWS).set_column(5, "duration_s", pa.array([math.nan, 2.0, None], pa.float64()))

    durations = {row.event_id: row.duration_s for row in play_rows(check_plays(table, earliest_ms=0))}

    assert durations == {ROWS[0].event_id: None, ROWS[1].event_id: 2.0, ROWS[2].event_id: None}


@pytest.mark.parametrize(("value", "shown"), [(-1.0, "-1"), (math.inf, "inf"), (4e7, "4e\\+07")])
def test_a_duration_that_no_play_can_have_is_named_with_its_row(value: float, shown: str) -> None:
    table = plays_table(ROWS).set_column(5, "duration_s", pa.array([1.0, value, None], pa.float64()))

    with pytest.raises(DataError, match=f"column duration_s: row 1: {shown}; allowed: seconds from 0 to 31,622,400"):
        check_plays(table, earliest_ms=0)


def test_a_duration_type_is_converted_by_its_unit_and_whole_seconds_may_be_any() -> None:
    for unit, per_second in (("s", 1), ("ms", 1_000), ("us", 10**6), ("ns", 10**9)):
        typed = pa.array([90 * per_second, None], pa.duration(unit))
        assert check_plays(play_columns(duration_s=typed)).column("duration_s").to_pylist() == [90.0, None]
    whole = pa.array([2**24 + 1, 3], pa.int64())
    assert check_plays(play_columns(duration_s=whole)).column("duration_s").to_pylist() == [2.0**24, 3.0]


def test_typed_times_are_converted_and_the_rows_are_in_their_order() -> None:
    times = pa.array([NOW_MS * 1000 + 1500, NOW_MS * 1000], pa.timestamp("us"))
    table = pa.table({"event_id": ["b", "a"], "user_id": ["u", "u"], "item_id": ["i", "i"], "ts_ms": times})
    assert list(play_rows(check_plays(table))) == [
        PlayRow("a", "u", "i", NOW_MS),
        PlayRow("b", "u", "i", NOW_MS + 1),
    ]


def test_the_limits_of_a_domain_hold() -> None:
    table = plays_table([PlayRow("e", "u", "i", NOW_MS)])
    assert check_plays(table, earliest_ms=NOW_MS, end_ms=NOW_MS + 1).num_rows == 1
    for limits in ({"earliest_ms": NOW_MS + 1}, {"end_ms": NOW_MS}):
        with pytest.raises(DataError, match="row 0: the time is 1772396100000"):
            check_plays(table, **limits)


def play_columns(**changed: pa.Array) -> pa.Table:
    """Two plays, with some columns as given."""
    columns = {"event_id": ["e1", "e2"], "user_id": ["u", "u"], "item_id": ["i1", "i2"], "ts_ms": [NOW_MS, NOW_MS + 1]}
    return pa.table(columns | changed)


@pytest.mark.parametrize("column", ["event_id", "user_id", "item_id"])
def test_an_id_is_a_text_or_a_whole_number_of_1_to_256_bytes(column: str) -> None:
    for given in (["7", "123456789012"], [7.0, 123456789012.0], [7, 123456789012]):
        assert check_plays(play_columns(**{column: pa.array(given)})).column(column).to_pylist() == [
            "7",
            "123456789012",
        ]
    for wrong, said in (("", "0 bytes"), ("i" * 257, "257 bytes"), ("ü" * 129, "258 bytes")):
        with pytest.raises(DataError, match=f"column {column}: row 1: {said}; allowed: 1 to 256 bytes of UTF-8"):
            check_plays(play_columns(**{column: pa.array(["i", wrong])}))
    with pytest.raises(DataError, match=f"column {column} has 1 nulls"):
        check_plays(play_columns(**{column: pa.array([7.0, math.nan])}))
    for number in (7.5, math.inf, 2.0**53):
        with pytest.raises(DataError, match=f"column {column}: row 1: .*, a number; allowed: texts, or whole numbers"):
            check_plays(play_columns(**{column: pa.array([7.0, number])}))


@pytest.mark.parametrize("column", ["event_id", "user_id", "item_id", "action", "session_id"])
@pytest.mark.parametrize(
    "wrong",
    [
        pa.array([True, False]),
        pa.array([True, False]).dictionary_encode(),
        pa.array([NOW_MS, NOW_MS], pa.timestamp("ms")),
        pa.array([1, 2], pa.date32()),
    ],
    ids=["bool", "dictionary of bools", "timestamp", "date"],
)
def test_truth_values_and_times_are_no_texts(column: str, wrong: pa.Array) -> None:
    with pytest.raises(DataError, match=rf"^plays: column {column} is .*; allowed: texts, or whole numbers$"):
        check_plays(play_columns(**{column: wrong}))


@pytest.mark.parametrize("column", ["action", "session_id"])
def test_an_empty_action_or_session_and_nan_are_missing(column: str) -> None:
    for given, read in (
        (["a", ""], ["a", None]),
        ([7.0, math.nan], ["7", None]),
        (["ü" * 256, None], ["ü" * 256, None]),
    ):
        assert check_plays(play_columns(**{column: pa.array(given)})).column(column).to_pylist() == read
    with pytest.raises(DataError, match=f"column {column}: row 1: 257 characters; allowed: 1 to 256"):
        check_plays(play_columns(**{column: pa.array(["a", "a" * 257])}))


def test_numbers_in_the_context_are_the_texts_that_spell_them_and_nan_is_missing() -> None:
    given = [[("no", 1.0)], [("a", math.nan), ("b", 123456789012.0), ("c", 5.5)], None]
    maps = pa.array(given, pa.map_(pa.string(), pa.float64())).slice(1)
    table = check_plays(play_columns(context=maps))

    assert table.column("context").to_pylist() == [[("a", None), ("b", "123456789012"), ("c", "5.5")], None]


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ([("", "x")], "a name of 0 characters; allowed: 1 to 256"),
        ([("k" * 257, "x")], "a name of 257 characters; allowed: 1 to 256"),
        ([("a", "x"), ("b", "x" * 1025)], "'b' has 1,025 characters; allowed: at most 1,024"),
        ([(f"k{number}", "x") for number in range(65)], "65 entries; allowed: at most 64"),
    ],
)
def test_a_context_outside_the_limits_is_named_with_its_row(context: list[tuple[str, str]], said: str) -> None:
    kind = pa.map_(pa.string(), pa.string())
    chunks = [pa.array([[("a", "x")]], kind), pa.array([[("no", "x")], context], kind).slice(1)]
    with pytest.raises(DataError, match=f"plays: column context: row 1: {said}"):
        check_plays(play_columns(context=pa.chunked_array(chunks)))
    unset = pa.array([[(f"k{number}", None) for number in range(65)], None], kind)
    assert check_plays(play_columns(context=unset)).num_rows == 2


def with_latin_1(kind: pa.DataType) -> pa.Array:
    """Two values; the second one is in Latin-1."""
    values = pa.array([b"fine", b"caf\xe9"], pa.binary())
    return values.view(kind) if kind == pa.string() else values.cast(kind)


SAID = re.escape(r"b'caf\xe9' is not UTF-8; allowed: texts in UTF-8")


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("column", ["event_id", "user_id", "item_id", "action", "session_id"])
def test_a_text_that_is_no_utf_8_is_refused_with_its_row(column: str, kind: pa.DataType) -> None:
    bad = with_latin_1(kind)
    tables = [play_columns(**{column: values}) for values in (bad.take(pa.array([0, 0])), bad)]
    with pytest.raises(DataError, match=f"column {column}: row 3: {SAID}"):
        check_plays(pa.concat_tables(tables))


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_a_name_or_value_of_the_context_that_is_no_utf_8_is_refused_with_its_row(kind: pa.DataType) -> None:
    fine, bad = pa.array(["a", "b"]).cast(kind), with_latin_1(kind)
    for keys, values, what in ((fine, bad, "a value"), (bad, fine, "a name")):
        maps = pa.MapArray.from_arrays([0, 1, 2], keys, values)
        with pytest.raises(DataError, match=f"column context: row 1: {what}, {SAID}"):
            check_plays(play_columns(context=maps))


@pytest.mark.parametrize("column", ["event_id", "user_id", "item_id", "action", "session_id"])
def test_a_whole_decimal_is_the_text_of_its_digits(column: str) -> None:
    for kind in (pa.decimal128(25, 2), pa.decimal256(60, 3)):
        given = pa.array([Decimal("7.00"), Decimal("12345678901234567890")], kind)
        read = check_plays(play_columns(**{column: given})).column(column).to_pylist()
        assert read == ["7", "12345678901234567890"]
    with pytest.raises(DataError, match=f"column {column}: row 1: 1.50, a number; allowed: texts, or whole numbers"):
        check_plays(play_columns(**{column: pa.array([Decimal("7.00"), Decimal("1.50")])}))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_duration_that_is_a_text_is_a_number_or_missing_or_named_with_its_row(kind: pa.DataType) -> None:
    given = pa.array(["1.5", ""]).cast(kind)
    assert check_plays(play_columns(duration_s=given)).column("duration_s").to_pylist() == [1.5, None]
    with pytest.raises(
        DataError, match="column duration_s: row 1: 'x', no number; allowed: seconds from 0 to 31,622,400"
    ):
        check_plays(play_columns(duration_s=pa.array(["", "x"]).cast(kind)))
