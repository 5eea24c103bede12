"""Columns that move beside an index: the exact best are found where the candidates hold them, whatever the filters hide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index import counted
from index.base import PAD_ROW
from index.counted import CountedIndex, highest_rows
from index.exact import ExactIndex
from index.extended import ExtendedIndex
from index.recall import exact_search_of, recall_at_k

NUM_ITEMS, WIDTH, NUM_COLUMNS, K = 400, 12, 5, 10


def world(seed: int, num_played: int = 150) -> tuple[ExactIndex, NDArray[np.float32], NDArray[np.float32]]:
    """Vectors, columns of which some items have none, and queries whose gates like high counts and new items."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(NUM_ITEMS + 1, WIDTH)).astype(np.float32)
    columns = np.zeros((NUM_ITEMS + 1, NUM_COLUMNS), dtype=np.float32)
    played = 1 + random.permutation(NUM_ITEMS)[:num_played]
    columns[played] = random.exponential(2.0, size=(num_played, NUM_COLUMNS)).astype(np.float32)
    gates = np.abs(random.normal(size=(20, NUM_COLUMNS))) * [1, 1, 1, 1, -0.3]
    queries = np.concatenate([random.normal(size=(20, WIDTH)), gates], axis=1).astype(np.float32)
    return ExactIndex(vectors), columns, queries


def index_of(base: ExactIndex | ExtendedIndex, columns: NDArray[np.float32]) -> CountedIndex:
    return CountedIndex(base, columns, highest_rows(columns))


def naive(index: CountedIndex, query: NDArray[np.float32], hidden: set[int]) -> list[int]:
    rows = [row for row in range(1, index.num_items + 1) if row not in hidden]
    scores = index.vectors_of(np.array(rows, dtype=np.int64)).astype(np.float64) @ query
    return [row for _, row in sorted(zip(-scores, rows, strict=True))[:K]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_the_exact_best_are_found_under_every_filter(seed: int, share: float) -> None:
    """Every item is a candidate here: there are fewer with counts than a column has places, and the index gives the others."""
    base, columns, queries = world(seed)
    random = np.random.default_rng(seed)
    index = index_of(base, columns)
    masks = [random.random(NUM_ITEMS + 1) < share for _ in range(3)]
    allowed = [None if share == 1.0 else masks[i % 3] for i in range(len(queries))]
    excluded = [random.integers(0, NUM_ITEMS + 1, size=7) for _ in queries]
    rows, scores = index.search(queries, K, excluded=excluded, allowed=allowed)
    for i, (mask, hidden) in enumerate(zip(allowed, excluded, strict=True)):
        gone = set(hidden.tolist()) | (set() if mask is None else set(np.flatnonzero(~mask).tolist()))
        wanted = naive(index, queries[i], gone)
        assert [row for row in rows[i].tolist() if row != PAD_ROW] == wanted
        np.testing.assert_allclose(
            scores[i, : len(wanted)], index.vectors_of(np.array(wanted)) @ queries[i], rtol=1e-4, atol=1e-4
        )


def test_items_added_beside_the_index_have_columns_too() -> None:
    base, columns, queries = world(3)
    added = np.random.default_rng(4).normal(size=(3, WIDTH)).astype(np.float32)
    grown = np.concatenate([columns, np.full((3, NUM_COLUMNS), 30.0, dtype=np.float32)])
    grown[-1] = 0.0
    index = index_of(ExtendedIndex(base, added), grown)
    rows, _ = index.search(queries, K)
    assert all(set(found[:2]) == {NUM_ITEMS + 1, NUM_ITEMS + 2} for found in rows.tolist())
    assert naive(index, queries[0], set()) == rows[0].tolist()


def test_with_few_candidates_most_of_the_best_are_found_and_the_exact_search_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counted, "DEPTH", K)
    base, columns, queries = world(5, num_played=350)
    index = CountedIndex(base, columns, highest_rows(columns, per_column=20))
    exact = exact_search_of(index)
    assert exact is not None
    assert exact.search(queries, K)[0].tolist() == [naive(index, query, set()) for query in queries]
    assert 0.5 < recall_at_k(index, exact, queries, K) < 1.0
    few = np.random.default_rng(6).random(NUM_ITEMS + 1) < 0.2
    hidden = set(np.flatnonzero(~few).tolist())
    found, _ = index.search(queries, K, allowed=[few] * len(queries))
    assert found.tolist() == [naive(index, query, hidden) for query in queries], "a strong filter is searched exactly"


def test_the_highest_rows_of_each_column_and_the_newest_items() -> None:
    columns = np.zeros((8, 3), dtype=np.float32)
    columns[1:6] = [[5, 1, 3], [1, 5, 3], [2, 2, 9], [0, 0, 1], [3, 3, 4]]
    assert highest_rows(columns, per_column=1).tolist() == [1, 2, 3, 4]
    assert highest_rows(columns).tolist() == [1, 2, 3, 4, 5]
    assert highest_rows(columns, np.array([4, 5, 6]), per_column=1).tolist() == [4, 5]


def test_columns_that_do_not_fit_are_refused() -> None:
    base, columns, _ = world(0)
    with pytest.raises(ValueError, match="columns have shape"):
        CountedIndex(base, columns[1:], np.zeros(0, dtype=np.int64))
