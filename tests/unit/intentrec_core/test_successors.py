"""What follows an item is counted as it is defined, in one go or play by play, and added as it is defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentrec_core import successors as subject
from intentrec_core.successors import LAGS, Successors, SuccessorTable, popular_shares
from tests.worlds.naive_score import naive_successors

NUM_ROWS = 7
#: Plays of members by their rows; row 0 is an item without one.
histories = st.lists(st.lists(st.integers(0, NUM_ROWS - 1), max_size=12), max_size=4)
lasts = st.lists(st.lists(st.integers(0, NUM_ROWS - 1), min_size=LAGS, max_size=LAGS), min_size=1, max_size=4)


def counted(plays: list[list[int]], before: SuccessorTable | None = None, num_old: int = 0) -> SuccessorTable:
    """The table of all plays; ``before`` has each member's first ``num_old`` already."""
    rows = np.array([row for own in plays for row in own], dtype=np.int64)
    member = np.repeat(np.arange(len(plays)), [len(own) for own in plays])
    is_new = np.array([place >= num_old for own in plays for place in range(len(own))], dtype=np.bool_)
    return (before or SuccessorTable.empty(NUM_ROWS)).counted(rows, member, is_new if before else None)


def by_row(table: SuccessorTable, last: list[list[int]]) -> list[dict[int, float]]:
    query, row, found = table.following(np.array(last, dtype=np.int64))
    keys = list(zip(query.tolist(), row.tolist(), strict=True))
    assert keys == sorted(set(keys)), "one query after another, and its rows ascend"
    return [
        {r: x for q, r, x in zip(query.tolist(), row.tolist(), found.tolist(), strict=True) if q == one}
        for one in range(len(last))
    ]


@given(plays=histories, last=lasts)
@settings(max_examples=300, deadline=None)
def test_what_follows_is_counted_as_defined(plays: list[list[int]], last: list[list[int]]) -> None:
    for found, rows in zip(by_row(counted(plays), last), last, strict=True):
        assert found == pytest.approx(naive_successors(plays, rows), rel=1e-5)


@given(plays=histories, last=lasts, num_old=st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_plays_that_are_added_later_count_as_if_they_had_been_there(
    plays: list[list[int]], last: list[list[int]], num_old: int
) -> None:
    whole, in_parts = counted(plays), counted(plays, counted([own[:num_old] for own in plays]), num_old)
    np.testing.assert_array_equal(in_parts.starts, whole.starts)
    np.testing.assert_array_equal(in_parts.rows, whole.rows)
    np.testing.assert_allclose(in_parts.counts, whole.counts, rtol=1e-5)
    np.testing.assert_allclose(in_parts.totals, whole.totals, rtol=1e-5)


#: After 1: three times 5, twice 2 and 4, once 3 and 6.
SOME = [[1, after] for after in (5, 5, 5, 4, 4, 2, 2, 3, 6)]


def test_of_the_most_frequent_successors_the_newer_items_are_kept_and_all_of_them_count_in_a_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "KEPT", 2)
    table = counted(SOME)
    assert table.rows.tolist() == [4, 5]
    assert table.counts.tolist() == [2.0, 3.0]
    assert table.totals[1] == 9.0


def test_scores_are_made_of_the_most_frequent_and_the_others_go_on_being_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "MOST", 2)
    successors, last = Successors(counted(SOME), 1.0), np.array([[1, 0, 0, 0, 0]])
    assert successors.offsets(last).row.tolist() == [2, 5]
    assert successors.table.rows.tolist() == [2, 3, 4, 5, 6]
    later = Successors(successors.table.counted(np.array([1, 6] * 3), np.repeat(np.arange(3), 2)), 1.0)
    assert later.offsets(last).row.tolist() == [5, 6]
    np.testing.assert_allclose(later.offsets(last).offset, np.log(1 + 100 * np.array([3, 4]) / (12 + 10)), rtol=1e-6)


def test_a_count_that_fades_away_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer goes on from its own table for ever: no count may become one that a table refuses."""
    monkeypatch.setattr(subject, "LARGEST", 8.0)
    table = counted([[1, 2]] * 8)
    for _ in range(200):
        table = table.counted(np.array([1, 3] * 20), np.repeat(np.arange(20), 2))
    assert table.rows.tolist() == [3]
    np.testing.assert_allclose(table.counts, [8.0], rtol=1e-3)


def test_old_transitions_fade_where_an_item_has_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LARGEST", 8.0)
    before = counted([[1, 2]] * 8)
    assert before.counts.tolist() == [8.0]
    after = counted([[1, 2]] * 8 + [[1, 3]] * 8, before, num_old=2)
    assert (after.counts.tolist(), after.totals[1]) == ([8.0], 8.0), "no play was new"
    rows = np.array([1, 3] * 8, dtype=np.int64)
    later = before.counted(rows, np.arange(16) // 2)
    assert later.rows.tolist() == [2, 3]
    assert later.counts.tolist() == [4.0, 4.0]
    assert later.totals[1] == 8.0
    again = later.counted(rows, np.arange(16) // 2)
    assert again.counts.tolist() == [2.0, 6.0], "what was counted earlier counts less and less"


def test_nothing_follows_an_item_that_was_added() -> None:
    table = counted([[1, 2], [2, 1]])
    longer = table.extended(NUM_ROWS + 2)
    assert longer.num_rows == NUM_ROWS + 2
    assert by_row(longer, [[NUM_ROWS + 1, 0, 0, 0, 0]]) == [{}]
    assert by_row(longer, [[1, 0, 0, 0, 0]]) == by_row(table, [[1, 0, 0, 0, 0]]) != [{}]
    assert by_row(SuccessorTable.empty(3), [[1, 2, 0, 0, 0]]) == [{}]


@given(plays=histories, order=st.permutations(range(1, NUM_ROWS)), num_kept=st.integers(0, NUM_ROWS - 1), last=lasts)
@settings(max_examples=100, deadline=None)
def test_a_table_in_other_rows_says_the_same_of_the_items_that_have_one(
    plays: list[list[int]], order: list[int], num_kept: int, last: list[list[int]]
) -> None:
    table, rows = counted(plays), np.array([0, *order[:num_kept]])
    new_of = {row: new for new, row in enumerate(rows.tolist())}
    asked = [[row if row in new_of else 0 for row in own] for own in last]
    before, after = by_row(table, asked), by_row(table.renumbered(rows), [[new_of[r] for r in own] for own in asked])
    for one, other in zip(before, after, strict=True):
        assert {new_of[row]: x for row, x in one.items() if row in new_of} == pytest.approx(other)


def test_a_weight_scales_what_is_added() -> None:
    table, last = counted([[1, 2, 3], [1, 3, 2]]), np.array([[1, 2, 0, 0, 0]])
    query, row, share = table.following(last)
    offsets = Successors(table, 1.5).offsets(last)
    np.testing.assert_array_equal(offsets.query, query)
    np.testing.assert_array_equal(offsets.row, row)
    np.testing.assert_allclose(offsets.offset, 1.5 * np.log(1 + 100 * share), rtol=1e-6)
    assert offsets.offset.dtype == np.float32


@given(plays=histories, last=lasts, seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_popularity_and_what_follows_add_up_within_one_logarithm(
    plays: list[list[int]], last: list[list[int]], seed: int
) -> None:
    successors, asked = Successors(counted(plays), 2.0), np.array(last)
    day = np.log1p(np.random.default_rng(seed).exponential(size=(len(last), NUM_ROWS))).astype(np.float32)
    day[:, 0] = 0.0
    popular = popular_shares(day)
    np.testing.assert_allclose(popular, 3 * np.expm1(day) / np.expm1(day).sum(axis=1, keepdims=True), rtol=1e-5)
    found = successors.of_popular(popular).copy()
    offsets = successors.offsets(asked, popular)
    assert (offsets.offset >= 0).all()
    found[offsets.query, offsets.row] += offsets.offset
    for own, beside, rows in zip(found, popular, last, strict=True):
        share = naive_successors(plays, rows)
        wanted = [2.0 * np.log(1 + 100 * (share.get(row, 0.0) + beside[row])) for row in range(NUM_ROWS)]
        np.testing.assert_allclose(own, wanted, rtol=1e-4)
    one = successors.offsets(asked[:1], popular[0])
    np.testing.assert_array_equal(one.offset, offsets.offset[offsets.query == 0])


def test_shares_of_some_items_are_those_of_all_plays_and_no_play_is_no_share() -> None:
    day = np.log1p(np.array([0, 1, 2, 5], dtype=np.float32))
    np.testing.assert_allclose(popular_shares(day[1:3], total=8.0), [3 / 8, 6 / 8], rtol=1e-6)
    assert not popular_shares(np.zeros(3, dtype=np.float32)).any()


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        Successors(SuccessorTable.empty(2), weight)


@pytest.mark.parametrize("rows", [[2, 1], [1, 1]])
def test_the_rows_of_an_item_ascend(rows: list[int]) -> None:
    """A repeated row would be counted into twice, with room for it once."""
    starts, counts = np.array([0, 0, 2, 2]), np.ones(2, dtype=np.float32)
    SuccessorTable(np.array([0, 0, 1, 2]), np.array(rows, dtype=np.int32), counts, np.ones(3, dtype=np.float32))
    with pytest.raises(ValueError, match="ascend for each item"):
        SuccessorTable(starts, np.array(rows, dtype=np.int32), counts, np.ones(3, dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("starts", np.array([0, 2, 1, 2]), "ascend"),
        ("starts", np.array([1, 1, 1, 2]), "ascend"),
        ("starts", np.array([0, 1, 1, 3]), "ascend"),
        ("starts", np.array([0, 1, 2]), "one more number"),
        ("starts", np.zeros(0, dtype=np.int64), "one more number"),
        ("starts", np.array([0, 1, 1, 2], dtype=np.int32), "int64"),
        ("rows", np.array([1, 3], dtype=np.int32), "from 1 to 2"),
        ("rows", np.array([0, 2], dtype=np.int32), "from 1 to 2"),
        ("rows", np.array([1], dtype=np.int32), "ascend"),
        ("rows", np.array([[1, 2]], dtype=np.int32), "one more number"),
        ("rows", np.array([1, 2]), "int32"),
        ("counts", np.array([0.5, np.nan], dtype=np.float32), "counts"),
        ("counts", np.array([0.5, np.inf], dtype=np.float32), "counts"),
        ("counts", np.array([0.0, 0.5], dtype=np.float32), "counts"),
        ("counts", np.array([0.5, 0.5]), "float32"),
        ("totals", np.array([0.0, -1.0, 1.0], dtype=np.float32), "totals"),
        ("totals", np.array([0.0, np.nan, 1.0], dtype=np.float32), "totals"),
        ("totals", np.array([0.0, 1.0], dtype=np.float32), "one more number"),
    ],
)
def test_arrays_that_are_no_table_are_refused(name: str, value: NDArray[Any], says: str) -> None:
    parts: dict[str, NDArray[Any]] = {
        "starts": np.array([0, 1, 1, 2]),
        "rows": np.array([1, 2], dtype=np.int32),
        "counts": np.array([0.5, 0.5], dtype=np.float32),
        "totals": np.array([1.0, 0.0, 2.0], dtype=np.float32),
    }
    SuccessorTable(**parts)
    with pytest.raises(ValueError, match=says):
        SuccessorTable(**{**parts, name: value})
