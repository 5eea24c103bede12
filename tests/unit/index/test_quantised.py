"""Product quantisation: what the codes find, that no filter, shortage or foreign file gets past them, and what ``auto`` takes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from index import artifact
from index.base import PAD_ROW
from index.exact import ExactIndex
from index.faiss_index import FaissIndex
from index.pruning import MIN_QUERIES, PLANNED_K
from index.quantised import MIN_ITEMS, QuantisedIndex, quantise
from index.recall import recall_at_k
from index.refined import SLACK
from intentrec_core.errors import BundleError, BundleFault

NUM_ITEMS, DIMENSION = 2_400, 21  # neither even nor a multiple of a part: directions are padded


def world(seed=0, num_items=NUM_ITEMS):
    """Items of a decaying spectrum with a bias, and queries that reach into some directions more than into others."""
    random = np.random.default_rng(seed)
    spectrum = np.arange(1, DIMENSION + 1) ** -0.6
    vectors = random.normal(size=(num_items + 1, DIMENSION)) * spectrum
    queries = random.normal(size=(800, DIMENSION)) * np.sqrt(spectrum)
    vectors[:, -1], queries[:, -1] = random.gamma(2.0, 0.3, size=num_items + 1), 1.0
    vectors[0] = 0.0
    return vectors.astype(np.float32), queries.astype(np.float32)


@pytest.fixture(scope="module")
def built():
    vectors, queries = world()
    return QuantisedIndex(vectors, quantise(vectors, queries[400:])), queries[:400]


def test_codes_find_what_they_promise_to_other_queries(built):
    index, queries = built
    assert index.quantisation.recall >= 0.995
    for k in (10, 40, PLANNED_K):
        assert recall_at_k(index, index.exact, queries, k) >= 0.99


def test_the_items_found_are_scored_and_ordered_as_the_exact_index_does(built):
    index, queries = built
    rows, scores = index.search(queries, 10)
    own_rows, own_scores = index.exact.search(queries, 10)
    same = (rows == own_rows).all(axis=1)
    assert same.mean() > 0.9
    assert np.array_equal(scores[same], own_scores[same])


def test_equal_items_stand_in_row_order():
    vectors, queries = world(num_items=900)
    vectors[1:] = np.repeat(vectors[1:91], 10, axis=0)
    rows, scores = QuantisedIndex(vectors, quantise(vectors, queries)).search(queries[:50], 25)
    tied = scores[:, 1:] == scores[:, :-1]
    assert tied.any()
    assert (np.diff(rows, axis=1)[tied] > 0).all()


def test_a_result_depends_on_no_other_query_of_its_batch_whatever_the_filters_of_the_others(built):
    index, queries = built
    random = np.random.default_rng(1)
    masks = [None, *(random.random(NUM_ITEMS + 1) < ratio for ratio in (0.9, 0.6, 0.3, 0.1))]
    allowed = [masks[query % 5] for query in range(60)]
    best_rows, _ = index.exact.search(queries[:60], 100)
    excluded = [rows[: (7 * query) % 100] for query, rows in enumerate(best_rows)]
    rows, scores = index.search(queries[:60], 10, excluded=excluded, allowed=allowed)
    for query in range(60):
        one = slice(query, query + 1)
        alone = index.search(queries[one], 10, excluded=excluded[one], allowed=allowed[one])
        assert np.array_equal(rows[one], alone[0])
        assert np.array_equal(scores[one], alone[1])


def test_filters_hold_and_leave_lists_full(built):
    index, queries = built
    random = np.random.default_rng(1)
    best_rows, _ = index.exact.search(queries, 150)
    excluded = [row[random.random(150) < 0.7] for row in best_rows]
    mask = random.random(NUM_ITEMS + 1) < 0.6
    rows, _ = index.search(queries, 10, excluded=excluded, allowed=[mask] * len(queries))
    assert (rows > 0).all()
    assert mask[rows].all()
    assert not any(np.isin(row, hidden).any() for row, hidden in zip(rows, excluded, strict=True))
    own, _ = index.exact.search(queries, 10, excluded=excluded, allowed=[mask] * len(queries))
    assert np.mean([np.isin(a, b).mean() for a, b in zip(own, rows, strict=True)]) >= 0.99


def test_items_that_can_be_no_answer_get_no_codes_and_are_shown_where_the_filters_leave_only_them():
    vectors, queries = world()
    vectors[1200:, -1] -= 50.0
    index = QuantisedIndex(vectors, quantise(vectors, queries[400:]))
    assert index.num_searched < 1900
    without = np.ones(NUM_ITEMS + 1, dtype=np.bool_)
    without[index.quantisation.rows] = False
    rows, _ = index.search(queries[:5], 10, allowed=[without] * 5)
    assert np.array_equal(rows, index.exact.search(queries[:5], 10, allowed=[without] * 5)[0])


@pytest.mark.parametrize("case", ["restrictive filter", "more results than planned for", "most of the best are hidden"])
def test_what_codes_are_not_made_for_is_answered_exactly(built, case):
    index, queries = built
    mask, k, excluded = np.ones(NUM_ITEMS + 1, dtype=np.bool_), 10, None
    if case == "restrictive filter":
        mask = np.arange(NUM_ITEMS + 1) % 50 == 0
    elif case == "most of the best are hidden":
        excluded = list(index.exact.search(queries, 1000)[0])
    else:
        k = PLANNED_K + 20
    rows, scores = index.search(queries, k, excluded=excluded, allowed=[mask] * len(queries))
    own_rows, own_scores = index.exact.search(queries, k, excluded=excluded, allowed=[mask] * len(queries))
    assert np.array_equal(rows, own_rows)
    assert np.array_equal(scores, own_scores)


def test_a_list_is_not_made_of_the_few_candidates_that_the_filters_left(built):
    index, queries = built
    num_hidden = index.num_candidates(10) + SLACK - 12  # of all that are fetched, about a dozen are left
    hidden = list(index.exact.search(queries, num_hidden)[0])
    own, _ = index.exact.search(queries, 10, excluded=hidden)
    rows, _ = index.search(queries, 10, excluded=hidden)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(own, rows, strict=True)]) >= 0.99


def test_an_included_item_is_found_though_the_codes_miss_it_and_is_held_to_the_filters():
    vectors, queries = world()
    index, query = QuantisedIndex(vectors, quantise(vectors, queries[400:])), queries[:1]
    best_row, shown = index.exact.search(query, 1)[0][0, 0], np.ones(NUM_ITEMS + 1, dtype=np.bool_)
    shown[best_row] = False
    worst_place = np.argmin(vectors[index.quantisation.rows] @ query[0])
    places = [np.flatnonzero(index.quantisation.rows == best_row)[0], worst_place]
    index._row_of_id[places] = index._row_of_id[places[::-1]]  # the codes take one for the other

    def first(**filters):
        return index.search(query, 1, **filters)[0][0, 0]

    included = [np.array([0, best_row, best_row])]
    assert first() != best_row
    assert first(included=included) == best_row
    assert first(included=included, excluded=[np.array([best_row])]) != best_row
    assert first(included=included, allowed=[shown]) != best_row


def test_several_threads_search_at_once(built):
    index, queries = built
    expected = index.search(queries, 10)[0]
    found = {}

    def search(number):
        found[number] = [index.search(queries[low : low + 20], 10)[0] for low in range(0, 400, 20)]

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(np.concatenate(rows), expected) for rows in found.values())
    assert len(found) == 4


def test_the_same_vectors_and_queries_are_the_same_file(built):
    index, _ = built
    vectors, queries = world()
    assert artifact.to_bytes(artifact.build(vectors, "pq-refine", queries[400:])) == artifact.to_bytes(index)


def test_an_index_file_holds_the_codes_and_knows_its_vectors(built):
    index, queries = built
    data = artifact.to_bytes(index)
    again = artifact.from_bytes(data, index.exact.vectors)
    assert isinstance(again, QuantisedIndex)
    assert artifact.kind_of(again) == "pq-refine"
    assert np.array_equal(again.search(queries, 20)[0], index.search(queries, 20)[0])
    assert artifact.to_bytes(again) == data
    other = index.exact.vectors.copy()
    other[-1, -1] += 1e-3
    for vectors in (other, other[:-5], other[:, 1:], other[:3]):
        with pytest.raises(BundleError) as refused:
            artifact.from_bytes(data, vectors, "b1")
        assert refused.value.fault is BundleFault.SHAPE
    with pytest.raises(BundleError, match="shape: index"):
        artifact.from_bytes(data[:40], index.exact.vectors)


@pytest.mark.parametrize("num_items", [0, 1, 2, 15, 255, MIN_ITEMS - 1])
def test_auto_is_flat_for_few_items_and_equals_exact(num_items):
    vectors, queries = world(num_items=num_items)
    index = artifact.build(vectors, "auto", queries)
    assert artifact.kind_of(index) == "flat"
    assert np.array_equal(index.search(queries[:9], 10)[0], ExactIndex(vectors).search(queries[:9], 10)[0])
    again = artifact.from_bytes(artifact.to_bytes(index), vectors)
    assert isinstance(again, FaissIndex)
    with pytest.raises(ValueError, match=f"{num_items} items"):
        artifact.build(vectors, "pq-refine", queries)


def test_auto_takes_codes_from_enough_items_and_queries_on_if_they_find_enough():
    vectors, queries = world(num_items=MIN_ITEMS)
    assert artifact.kind_of(artifact.build(vectors, "auto", queries)) == "pq-refine"
    assert artifact.kind_of(artifact.build(vectors, "auto", queries[: MIN_QUERIES - 1])) == "flat"
    assert artifact.kind_of(artifact.build(vectors, "auto")) == "flat"
    with pytest.raises(ValueError, match=str(MIN_QUERIES)):
        artifact.build(vectors, "pq-refine", queries[: MIN_QUERIES - 1])
    with pytest.raises(ValueError, match="sample queries"):
        artifact.build(vectors, "pq-refine")


def test_items_that_are_all_alike_are_quantised_and_answered():
    vectors, queries = world(num_items=MIN_ITEMS)
    vectors[1:] = vectors[1]
    rows, _ = artifact.build(vectors, "pq-refine", queries).search(queries[:3], 10)
    assert rows.shape == (3, 10)
    assert (rows != PAD_ROW).all()
    assert artifact.kind_of(artifact.build(vectors, "auto", queries)) in ("flat", "pq-refine")


def test_an_empty_batch_is_answered(built):
    index, queries = built
    rows, scores = index.search(queries[:0], 5)
    assert rows.shape == scores.shape == (0, 5)
