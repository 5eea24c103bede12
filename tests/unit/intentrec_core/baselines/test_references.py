"""The references: popular items, and Markov chains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.baselines.markov import MarkovChain
from intentrec_core.baselines.popularity import PopularWindow

NUM_ROWS = 8
plays = st.lists(st.tuples(st.integers(0, NUM_ROWS - 1), st.integers(0, 100)), max_size=60)


def recount(added: list[tuple[int, int]], window_s: float) -> np.ndarray:
    now_s = max(ts for _, ts in added)
    return np.bincount([row for row, ts in added if row and ts > now_s - window_s], minlength=NUM_ROWS)


@given(plays.filter(bool), st.integers(1, 40))
def test_counts_are_those_of_a_recount_in_whatever_order_plays_come(
    added: list[tuple[int, int]], window_s: int
) -> None:
    window = PopularWindow(window_s)
    for i, (row, ts) in enumerate(added, start=1):
        window.add(row, ts)
        expected = recount(added[:i], window_s)
        assert window.counts(NUM_ROWS).tolist() == expected.tolist()
        assert len(window) == expected.sum()


@given(plays.filter(bool), st.sets(st.integers(1, NUM_ROWS - 1)), st.integers(0, 5))
def test_the_top_is_that_of_a_sort_without_the_excluded(
    added: list[tuple[int, int]], excluded: set[int], k: int
) -> None:
    window = PopularWindow(30.0)
    for row, ts in added:
        window.add(row, ts)
    counts = recount(added, 30.0)
    counts[sorted(excluded)] = 0
    top = window.top(k, excluded)
    assert counts[top].tolist() == sorted(counts[counts > 0].tolist(), reverse=True)[:k]
    assert len(set(top)) == len(top)


def test_plays_counted_by_a_bundle_leave_when_the_window_has_passed() -> None:
    window = PopularWindow(10.0)
    window.seed([0.0, 3.0, 1.0], ts_s=100.0)
    window.add(2, 105.0)
    assert window.top(2) == [1, 2]
    window.advance(110.0)
    assert window.top(2) == [2]
    assert window.count(1) == 0


def test_a_window_of_no_length_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        PopularWindow(0.0)


def test_a_chain_says_what_came_next_most_often() -> None:
    sequences = [np.array([1, 2, 3]), np.array([1, 2, 4]), np.array([2, 4])]
    chain = MarkovChain(6, shrinkage=0.0, backoff=0.0).fit(sequences)
    scores = chain.scores(np.array([2]), np.zeros(6, dtype=np.float32))
    np.testing.assert_allclose(scores, [0, 0, 0, 1 / 3, 2 / 3, 0], rtol=1e-6)


def test_later_plays_weigh_more_and_only_the_last_ones_count() -> None:
    chain = MarkovChain(6, lags=2, decay=0.5, shrinkage=0.0, backoff=0.0).fit([np.array([1, 2]), np.array([3, 4])])
    nobody = np.zeros(6, dtype=np.float32)
    np.testing.assert_allclose(chain.scores(np.array([3, 1]), nobody), [0, 0, 1, 0, 0.5, 0])
    np.testing.assert_allclose(chain.scores(np.array([3, 1, 5]), nobody), [0, 0, 0.5, 0, 0, 0])


def test_without_known_transitions_popularity_ranks() -> None:
    chain = MarkovChain(4).fit([np.array([0, 2, 0]), np.array([1])])
    scores = chain.scores(np.array([1, 0]), np.array([0, 1, 5, 2], dtype=np.float32))
    assert np.argsort(-scores)[:3].tolist() == [2, 3, 1]


def test_a_spread_chain_counts_what_follows_a_little_later() -> None:
    chain = MarkovChain(5, decay=0.5, shrinkage=0.0, backoff=0.0, spread=2).fit([np.array([1, 2, 3])])
    scores = chain.scores(np.array([1]), np.zeros(5, dtype=np.float32))
    np.testing.assert_allclose(scores, [0, 0, 1 / 1.5, 0.5 / 1.5, 0], rtol=1e-6)


def test_a_chain_without_lags_is_refused() -> None:
    with pytest.raises(ValueError, match="lags 0"):
        MarkovChain(3, lags=0)
