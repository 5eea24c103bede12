"""The ranking that ends early and follows several plays at once answers as the plain one does, to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentrec_core.kernels import transitions
from intentrec_core.kernels.transitions import NONE, PLAYS_AT_ONCE
from stream.pipeline.row_lists import RowLists
from tests.worlds.plain_markov import plain_among_top

SHRINKAGE, DECAY, BACKOFF = 30.0, 0.85, 0.1


@dataclass
class Asked:
    """A chain, what is popular, and plays that are asked for."""

    num_rows: int
    ring: NDArray[np.int64]
    newest: NDArray[np.int64]
    num_added: int
    counts: NDArray[np.int64]
    rows: NDArray[np.int64]
    last: RowLists
    hidden: RowLists

    def answers(self, k: int, max_per_item: int) -> list[bool]:
        """Those of both forms, which are the same; scratch space is left as it was."""
        order = np.argsort(-self.counts, kind="stable")
        for values in (self.counts, order):
            values.setflags(write=False)  # as those of a window: another type is compiled for itself
        weights = np.array([SHRINKAGE, DECAY, BACKOFF / max(1, self.counts.sum())])
        scores, is_hidden = np.zeros(self.num_rows, dtype=np.float32), np.zeros(self.num_rows, dtype=np.bool_)
        found = [
            among_top(
                self.rows,
                self.last.flat,
                self.last.starts,
                self.hidden.flat,
                self.hidden.starts,
                k,
                max_per_item,
                weights,
                self.counts,
                order,
                self.num_added,
                self.newest,
                self.ring,
                scores,
                is_hidden,
            ).tolist()
            for among_top in (plain_among_top, transitions.among_top)
        ]
        assert found[0] == found[1]
        assert not scores.any()
        assert not is_hidden.any()
        return list(found[0])


def asked(seed: int, num_rows: int, num_added: int, num_plays: int, most_hidden: int, skew: float) -> Asked:
    """Rows are drawn by a power law, so that some follow each other often, and many scores are equal."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, num_rows) ** -skew
    share /= share.sum()

    def drawn(num: int) -> NDArray[np.int64]:
        found = rng.choice(np.arange(1, num_rows), size=num, p=share)
        return np.where(rng.random(num) < 0.05, 0, found)

    ring, newest = np.full((1024, 2), NONE, dtype=np.int64), np.full(num_rows, NONE, dtype=np.int64)
    played = drawn(num_added + 1)
    added = transitions.add(played[:-1].copy(), played[1:].copy(), 0, newest, ring)
    counts = np.bincount(drawn(num_added // 4), minlength=num_rows)[: rng.integers(1, num_rows + 1)]
    counts[0] = 0
    lists = [[drawn(rng.integers(most + 1)) for _ in range(num_plays)] for most in (5, most_hidden)]
    last, hidden = (RowLists.below(own, num_rows) for own in lists)
    return Asked(num_rows, ring, newest, added, counts, drawn(num_plays), last, hidden)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.sampled_from([2, 5, 12, 60, 400]),
    num_added=st.sampled_from([0, 20, 300, 3_000]),
    num_plays=st.integers(0, 3 * PLAYS_AT_ONCE + 1),
    most_hidden=st.sampled_from([0, 3, 40]),
    skew=st.sampled_from([0.0, 1.0]),
    k=st.sampled_from([1, 2, 3, 10]),
    max_per_item=st.sampled_from([1, 7, 128]),
)
def test_answers_are_those_of_the_plain_form(
    seed: int,
    num_rows: int,
    num_added: int,
    num_plays: int,
    most_hidden: int,
    skew: float,
    k: int,
    max_per_item: int,
) -> None:
    asked(seed, num_rows, num_added, num_plays, most_hidden, skew).answers(k, max_per_item)


@pytest.mark.parametrize("most_hidden", [0, 60])
def test_many_plays_of_a_full_ring_are_answered_alike(most_hidden: int) -> None:
    found = asked(7, 300, 5_000, 1_000, most_hidden, 1.0).answers(10, 128)
    assert 50 < sum(found) < 950, "both answers are frequent, or the test shows little"


def test_rows_that_score_the_same_do_not_end_the_pass() -> None:
    ring, newest = np.full((8, 2), NONE, dtype=np.int64), np.full(5, NONE, dtype=np.int64)
    added = transitions.add(np.array([1, 1, 1]), np.array([2, 3, 4]), 0, newest, ring)
    asked_for, counts = np.array([2, 3, 4, 1]), np.zeros(5, dtype=np.int64)
    last = RowLists.below([np.array([1])] * 4, 5)
    after_one = Asked(5, ring, newest, added, counts, asked_for, last, RowLists.none(4))
    assert after_one.answers(2, 128) == [True, True, True, False]  # all three share the second rank
    assert after_one.answers(1, 128) == [False] * 4


def test_a_row_s_own_score_is_rounded_as_the_whole_pass_rounds_it() -> None:
    led_to, lengths = np.ones((2, 128), dtype=np.int64), np.array([101, 93])
    shares = np.array([0.85 / 123, 1 / 131], dtype=np.float32)
    expected = np.float32(0)
    for chain in (1, 0):
        for _ in range(lengths[chain]):
            expected += shares[chain]
    assert transitions.own_score(1, led_to, lengths, shares) == expected
