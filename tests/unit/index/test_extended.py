"""An index with items beside it is one index: the same rows and scores as one that was built over all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import artifact
from index.exact import ExactIndex
from index.extended import ExtendedIndex
from tests.unit.index.test_index import whole_vectors


@st.composite
def extended_searches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_base, num_added = draw(st.sampled_from([1, 2, 5, 40, 700])), draw(st.sampled_from([0, 1, 3, 90]))
    spread = draw(st.sampled_from([0, 1, 5, 1000]))  # 0: all items tie
    vectors = whole_vectors(rng, num_base + num_added, 6, spread)
    queries = whole_vectors(rng, draw(st.integers(0, 5)), 6, max(1, spread))
    lists = [[rng.integers(0, len(vectors), size=rng.integers(0, 30)) for _ in queries] for _ in range(2)]
    masks = [None, *(rng.random(len(vectors)) < ratio for ratio in rng.choice([0.0, 0.02, 0.3, 0.9, 1.0], size=3))]
    allowed = [masks[rng.integers(0, 4)] for _ in queries]
    return vectors, num_base, queries, draw(st.sampled_from([1, 3, 10, 50])), lists, allowed


@pytest.mark.parametrize("kind", ["exact", "flat"])
@settings(max_examples=80, deadline=None)
@given(search=extended_searches())
def test_equals_an_exact_index_over_all_items(kind, search):
    vectors, num_base, queries, k, (excluded, included), allowed = search
    index = ExtendedIndex(artifact.build(vectors[:num_base], kind), vectors[num_base:])
    whole = ExactIndex(vectors)
    assert (index.num_items, index.dimension) == (whole.num_items, whole.dimension)
    filters = {"excluded": excluded, "included": included, "allowed": allowed}
    for given_filters in ({}, filters):
        rows, scores = index.search(queries, k, **given_filters)
        want_rows, want_scores = whole.search(queries, k, **given_filters)
        assert rows.tolist() == want_rows.tolist()
        assert scores.tolist() == want_scores.tolist()


def test_scores_of_real_numbers_are_those_of_one_index_to_the_bit():
    rng = np.random.default_rng(4)
    vectors, queries = (rng.normal(size=(rows, 33)).astype(np.float32) for rows in (900, 20))
    rows, scores = ExtendedIndex(ExactIndex(vectors[:500]), vectors[500:]).search(queries, 10)
    want_rows, want_scores = ExactIndex(vectors).search(queries, 10)
    assert (rows >= 500).any()
    np.testing.assert_array_equal(rows, want_rows)
    np.testing.assert_array_equal(scores, want_scores)


def test_vectors_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"allowed: \[S, 3\]"):
        ExtendedIndex(ExactIndex(np.ones((2, 3), np.float32)), np.ones((1, 4), np.float32))
