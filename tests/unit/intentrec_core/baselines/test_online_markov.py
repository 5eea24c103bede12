"""The online Markov chain ranks as a plain dictionary of its newest transitions does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentrec_core.baselines import online_markov
from intentrec_core.baselines.online_markov import MAX_PER_ITEM, OnlineMarkov
from intentrec_core.baselines.popularity import PopularWindow

NUM_ROWS = 6
ROWS = st.integers(0, NUM_ROWS - 1)
PAIRS = st.lists(st.tuples(ROWS, ROWS), max_size=60)


def rows(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def popular_of(played: Sequence[int]) -> PopularWindow:
    popular = PopularWindow(num_rows=4)
    for row in played:
        popular.add(row, 0.0)
    return popular


def add(chain: OnlineMarkov, pairs: Sequence[tuple[int, int]]) -> None:
    before, after = rows(*(a for a, _ in pairs)), rows(*(b for _, b in pairs))
    chain.add(before, after)


def naive_rank(
    pairs: Sequence[tuple[int, int]],
    last: Sequence[int],
    target: int,
    popular: PopularWindow,
    hidden: set[int],
    kept: int,
) -> float:
    known = [(a, b) for a, b in pairs if a and b][-kept:]
    counts, _ = popular.counts_and_order()
    score = [0.1 * (counts[j] if j < len(counts) else 0) / max(1, len(popular)) for j in range(NUM_ROWS)]
    for back, row in enumerate(list(last)[: -5 - 1 : -1]):
        newest = [b for a, b in reversed(known) if a == row][:MAX_PER_ITEM]
        for after in newest:
            score[after] += 0.85**back / (len(newest) + 30.0)
    if target == 0 or target in hidden or score[target] <= 0:
        return float("inf")
    others = [score[j] for j in range(1, NUM_ROWS) if j != target and j not in hidden]
    above = sum(other > score[target] + 1e-6 for other in others)
    equal = sum(abs(other - score[target]) <= 1e-6 for other in others)
    return 1 + above + 0.5 * equal


@settings(max_examples=200, deadline=None)
@given(
    pairs=PAIRS,
    queries=st.lists(st.tuples(ROWS, st.lists(ROWS, max_size=8), st.sets(ROWS, max_size=6)), min_size=1, max_size=6),
    played=st.lists(ROWS, max_size=20),
    k=st.integers(1, 6),
)
def test_hits_equal_those_of_a_plain_ranking(
    pairs: list[tuple[int, int]],
    queries: list[tuple[int, list[int], set[int]]],
    played: list[int],
    k: int,
) -> None:
    kept = 4
    chain, popular = OnlineMarkov(NUM_ROWS, max_transitions=kept), popular_of(played)
    add(chain, pairs)
    found = chain.among_top(
        rows(*(target for target, _, _ in queries)),
        [rows(*last) for _, last, _ in queries],
        k,
        popular,
        [rows(*hidden, NUM_ROWS + 5) for _, _, hidden in queries],  # a row of a vocabulary that has grown meanwhile
    )
    expected = [naive_rank(pairs, last, target, popular, hidden, kept) <= k for target, last, hidden in queries]
    assert found.tolist() == expected


def test_the_newest_transitions_of_an_item_decide() -> None:
    chain, none = OnlineMarkov(8), PopularWindow()
    add(chain, [(1, 2)] * MAX_PER_ITEM + [(1, 3)] * MAX_PER_ITEM)
    found = chain.among_top(rows(2, 3), [rows(1), rows(1)], 1, none)
    assert found.tolist() == [False, True]


def test_the_oldest_transitions_are_dropped_once_the_ring_is_full() -> None:
    chain, none = OnlineMarkov(8, max_transitions=4), PopularWindow()
    add(chain, [(1, 2)])
    assert chain.among_top(rows(2), [rows(1)], 1, none).tolist() == [True]
    add(chain, [(3, 4)] * 4)
    assert chain.among_top(rows(2, 4, 4), [rows(1), rows(1), rows(3)], 1, none).tolist() == [False, False, True]


def test_rows_of_a_grown_vocabulary_are_taken() -> None:
    chain, none = OnlineMarkov(3), PopularWindow()
    add(chain, [(1, 2)])
    chain.reserve(6)
    chain.reserve(2)
    assert chain.num_rows == 6
    add(chain, [(2, 5)])
    assert chain.among_top(rows(2, 5), [rows(1), rows(2)], 1, none).tolist() == [True, True]


def test_nothing_is_found_before_the_first_transition_and_the_first_play() -> None:
    chain = OnlineMarkov(4)
    assert chain.among_top(rows(1, 2), [rows(), rows(3)], 3, PopularWindow()).tolist() == [False, False]
    assert chain.among_top(rows(), [], 3, PopularWindow()).tolist() == []


@pytest.mark.parametrize("wrong", [0, 12])
def test_a_ring_that_is_no_power_of_two_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"max_transitions is {wrong}"):
        OnlineMarkov(4, max_transitions=wrong)


def test_the_ring_of_the_default_is_a_power_of_two() -> None:
    assert online_markov.MAX_TRANSITIONS.bit_count() == 1
