"""Tables of plays: the schema, its order and what is refused."""

from __future__ import annotations

import math

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

    with pytest.raises(DataError, match=f"row 1, column duration_s: {shown}; allowed: seconds from 0 to 31,622,400"):
        check_plays(table, earliest_ms=0)


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
