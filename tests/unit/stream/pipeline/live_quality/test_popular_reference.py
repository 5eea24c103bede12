"""Whether an item is among the most played ones: as a plain list says it, by a window's counts and by a table's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentrec_core.baselines.online_markov import RankedCounts
from intentrec_core.baselines.popularity import PopularWindow
from intentrec_core.kernels.most_played import among_most_played
from stream.pipeline.live_quality.popular_reference import PopularReference
from stream.pipeline.popular import PopularTable
from stream.pipeline.row_lists import RowLists

NUM_ROWS = 12
#: Rows beyond those that have counts are in the vocabulary too.
ROWS = st.integers(0, NUM_ROWS + 2)


def rows(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def naive(popular: RankedCounts, row: int, hidden: Sequence[int], k: int) -> bool:
    counts, order = popular.counts_and_order()
    best = [other for other in order.tolist() if other and counts[other] and other not in hidden]
    return row in best[:k]


def window_of(played: Sequence[int]) -> PopularWindow:
    window = PopularWindow(num_rows=4)
    for row in played:
        window.add(row, 0.0)
    return window


@settings(max_examples=200, deadline=None)
@given(
    played=st.lists(st.integers(0, NUM_ROWS - 1), max_size=40),
    queries=st.lists(st.tuples(ROWS, st.lists(ROWS, max_size=8)), max_size=6),
    k=st.integers(1, 6),
)
def test_hits_equal_those_of_a_plain_list(played: list[int], queries: list[tuple[int, list[int]]], k: int) -> None:
    reference, asked = PopularReference(), rows(*(row for row, _ in queries))
    hidden = RowLists.below([rows(*own) for _, own in queries], NUM_ROWS + 3)
    week = np.bincount(rows(*(row for row in played if row)), minlength=NUM_ROWS).astype(np.float64)
    for popular in (window_of(played), PopularTable(week)):
        expected = [naive(popular, row, own, k) for row, own in queries]
        assert reference.hits(asked, k, popular, hidden).tolist() == expected
        nothing = RowLists.none(len(queries))
        assert reference.hits(asked, k, popular, nothing).tolist() == [naive(popular, row, (), k) for row, _ in queries]


def test_hits_equal_those_that_the_window_finds_itself() -> None:
    rng = np.random.default_rng(1)
    plays = rng.integers(0, 4, size=60)  # many rows share a count: the order among them is the window's
    plays[0] = 0
    window, asked = PopularWindow(1e9), rng.integers(0, 60, size=500)
    window.seed(plays.astype(np.float32), 0.0)
    hidden = [rng.integers(0, 60, size=rng.integers(0, 30)) for _ in asked]
    found = PopularReference().hits(asked, 10, window, RowLists.below(hidden, 60))
    assert found.tolist() == window.among_top(asked, 10, hidden).tolist()
    assert 50 < found.sum() < 450


def test_windows_and_tables_are_read_by_the_code_that_was_compiled_before() -> None:
    reference = PopularReference()
    reference.compile()
    hidden = RowLists.below([rows(4), rows()], 9)
    for popular in (window_of([1, 2, 2]), PopularTable(np.array([0.0, 1.5, 2.5]))):
        assert reference.hits(rows(2, 7), 1, popular, hidden).tolist() == [True, False]
    assert len(among_most_played.signatures) == 1
