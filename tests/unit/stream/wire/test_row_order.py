"""Rows are ordered by weight, and stay where they are for changes that mean nothing."""

from __future__ import annotations

from itertools import combinations
from operator import itemgetter

from hypothesis import example, given
from hypothesis import strategies as st

from stream.wire.row_order import MARGIN, by_weight, steady

WEIGHTS = st.lists(st.floats(0, 1, width=32), max_size=8)
Row = tuple[str, float]


def shown(rows: list[Row], before: list[str]) -> list[str]:
    return [name for name, _ in steady(before, rows, itemgetter(0), itemgetter(1))]


@given(WEIGHTS)
@example([0.10, 0.12, 0.14, 0.17, 0.21])
def test_no_row_weighs_clearly_more_than_any_above_it(weights: list[float]) -> None:
    ordered = by_weight(weights, lambda weight: weight)
    assert sorted(ordered) == sorted(weights)
    assert all(below <= MARGIN * above for above, below in combinations(ordered, 2))


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_clearly_different_weights_are_in_order(exponents: list[float], random) -> None:
    weights = [1.3**at for at in range(len(exponents))]
    random.shuffle(weights)
    assert by_weight(weights, lambda weight: weight) == sorted(weights, reverse=True)


@given(WEIGHTS)
def test_the_same_page_again_moves_no_row(weights: list[float]) -> None:
    rows = [(str(at), weight) for at, weight in enumerate(weights)]
    once = shown(rows, [])
    assert shown(rows, once) == once


def test_a_screen_does_not_jump_to_and_fro_at_any_ratio() -> None:
    """Two rows whose ratio wavers about the margin: the order changes once, and not with every message."""
    order, changes = ["a", "b"], 0
    for ratio in (1.20, 1.26, 1.20, 1.26, 1.20, 1.30, 1.0, 1.3, 0.9, 1.26):
        now = shown([("a", 0.2), ("b", 0.2 * ratio)], order)
        changes += now != order
        order = now
    assert order == ["b", "a"]
    assert changes == 1


def test_a_row_that_is_new_on_the_screen_comes_below_those_of_its_weight() -> None:
    assert shown([("new", 0.2), ("a", 0.2), ("b", 0.19)], ["b", "a"]) == ["b", "a", "new"]
    assert shown([("new", 0.5), ("a", 0.2), ("b", 0.19)], ["b", "a"]) == ["new", "b", "a"]
