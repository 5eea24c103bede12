"""The references: popular items, and Markov chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.baselines.counts import WindowCounts
from intentrec_core.baselines.markov import MarkovSettings, Transitions, add_backoff, add_transitions
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


@given(plays, st.integers(1, 40), st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_counts_of_a_table_are_those_of_a_recount(
    played: list[tuple[int, int]], window_s: int, stops: list[int]
) -> None:
    played = sorted(played, key=lambda play: play[1])
    row, ts_s = (np.array([p[i] for p in played], dtype=np.int64) for i in (0, 1))
    counts = WindowCounts(row, ts_s.astype(float), NUM_ROWS, float(window_s))
    for stop in sorted(min(stop, len(played)) for stop in stops):
        now_s = played[stop - 1][1] if stop else 0
        kept = [r for r, ts in played[:stop] if ts > now_s - window_s]
        assert counts.at(stop, float(now_s)).tolist() == np.bincount(kept, minlength=NUM_ROWS).tolist()


def test_counts_of_a_table_do_not_go_back() -> None:
    counts = WindowCounts(np.array([1, 2]), np.array([0.0, 1.0]), 3, 10.0)
    counts.at(2, 1.0)
    with pytest.raises(ValueError, match="forward"):
        counts.at(1, 1.0)


def chain_scores(
    sequences: list[list[int]], last: list[int], settings: MarkovSettings, num_rows: int = 6
) -> np.ndarray:
    """Scores of a chain that has learned members' sequences, without popularity."""
    row = np.array([r for sequence in sequences for r in sequence], dtype=np.int64)
    member = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    learnable = np.ones(len(row), dtype=np.bool_)
    spread, decay = settings.spread, settings.decay
    transitions = Transitions(row, member, np.arange(len(row)), learnable, num_rows, spread=spread, decay=decay)
    scores = np.zeros(num_rows, dtype=np.float32)
    add_transitions(scores, np.array(last, dtype=np.int64), transitions, settings, len(row))
    return scores


def test_a_chain_says_what_came_next_most_often() -> None:
    scores = chain_scores([[1, 2, 3], [1, 2, 4], [2, 4]], [2], MarkovSettings(shrinkage=0.0))
    np.testing.assert_allclose(scores, [0, 0, 0, 1 / 3, 2 / 3, 0], rtol=1e-6)


def test_later_plays_weigh_more_and_only_the_last_ones_count() -> None:
    settings = MarkovSettings(lags=2, decay=0.5, shrinkage=0.0)
    np.testing.assert_allclose(chain_scores([[1, 2], [3, 4]], [3, 1], settings), [0, 0, 1, 0, 0.5, 0])
    np.testing.assert_allclose(chain_scores([[1, 2], [3, 4]], [3, 1, 5], settings), [0, 0, 0.5, 0, 0, 0])


def test_the_unknown_item_follows_nothing_and_popularity_ranks_without_transitions() -> None:
    scores = chain_scores([[0, 2, 0], [1]], [1, 0], MarkovSettings(), num_rows=4)
    assert not scores.any()
    add_backoff(scores, np.array([0, 1, 5, 2], dtype=np.float32), 0.1)
    assert np.argsort(-scores)[:3].tolist() == [2, 3, 1]


def test_a_spread_chain_counts_what_follows_a_little_later() -> None:
    scores = chain_scores([[1, 2, 3]], [1], MarkovSettings(decay=0.5, shrinkage=0.0, spread=2))
    np.testing.assert_allclose(scores, [0, 0, 1 / 1.5, 0.5 / 1.5, 0, 0], rtol=1e-6)


def test_what_was_observed_later_is_not_known_yet() -> None:
    row, member = np.array([1, 2, 1, 3]), np.array([0, 0, 1, 1])
    everything = np.ones(4, dtype=np.bool_)
    transitions = Transitions(row, member, np.array([0, 1, 2, 3]), everything, 4)
    after, weight, total = transitions.followers(1, 3)
    assert (after.tolist(), weight.tolist(), total) == ([2], [1.0], 1.0)
    after, _, total = transitions.followers(1, 4)
    assert (sorted(after.tolist()), total) == ([2, 3], 2.0)


@pytest.mark.parametrize("wrong", [{"lags": 0}, {"spread": 0}, {"decay": 0.0}, {"shrinkage": -1.0}, {"backoff": -0.1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        MarkovSettings(**wrong)
