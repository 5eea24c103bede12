"""The pruned index: what its plan promises, and that filters, shortages and foreign files are handled."""

from __future__ import annotations

import numpy as np
import pytest

from index import artifact, pruning
from index.base import PAD_ROW
from index.exact import ExactIndex
from index.pruned import PrunedIndex
from index.pruning import MIN_QUERIES, PLANNED_K, TARGET_RECALL, Plan, make_plan
from index.recall import recall_at_k
from intentrec_core.errors import BundleError, BundleFault

NUM_ITEMS, DIMENSION = 12_000, 24


def world(seed=0, num_items=NUM_ITEMS):
    """Items in clusters, of lengths that differ as popularity makes them, and queries that mostly point one way."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(60, DIMENSION))
    lengths = random.gamma(2.0, 0.5, size=(num_items + 1, 1))
    vectors = (
        centres[random.integers(0, 60, num_items + 1)] + 0.5 * random.normal(size=(num_items + 1, DIMENSION))
    ) * lengths
    vectors[0] = 0.0
    spread = np.linspace(1.5, 0.02, DIMENSION)
    queries = 2.0 * np.eye(DIMENSION)[0] + spread * random.normal(size=(600, DIMENSION))
    return vectors.astype(np.float32), queries.astype(np.float32)


@pytest.fixture(scope="module")
def built():
    vectors, queries = world()
    return PrunedIndex(vectors, make_plan(vectors, queries[200:])), queries[:200]


def test_a_plan_finds_what_it_promises_to_other_queries_and_looks_at_a_part_only(built):
    index, queries = built
    assert len(index.plan.rows) < 0.7 * NUM_ITEMS
    assert index.plan.recall >= TARGET_RECALL
    assert recall_at_k(index, index.exact, queries, PLANNED_K) >= 0.99
    assert recall_at_k(index, index.exact, queries, 10) >= 0.99


def test_a_higher_target_looks_at_more():
    vectors, queries = world()
    modest, strict = (make_plan(vectors, queries, target) for target in (0.9, 1.0))
    assert len(modest.rows) < len(strict.rows)
    assert strict.recall == 1.0


def test_queries_that_favour_no_item_are_answered_by_all_of_them():
    random = np.random.default_rng(3)
    vectors = random.normal(size=(5000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0.0
    queries = random.normal(size=(300, 8)).astype(np.float32)
    index = PrunedIndex(vectors, make_plan(vectors, queries))
    assert recall_at_k(index, index.exact, queries, PLANNED_K) >= TARGET_RECALL
    assert len(index.plan.rows) > 4500


def test_the_items_found_are_scored_and_ordered_as_the_exact_index_does(built):
    index, queries = built
    rows, scores = index.search(queries, 10)
    own_rows, own_scores = index.exact.search(queries, 10)
    same = (rows == own_rows).all(axis=1)
    assert same.mean() > 0.9
    assert np.array_equal(scores[same], own_scores[same])


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
    assert np.mean([np.isin(a, b).mean() for a, b in zip(own, rows, strict=True)]) >= 0.97


@pytest.mark.parametrize("case", ["restrictive filter", "nothing kept may be shown", "more results than planned for"])
def test_what_a_plan_was_not_made_for_is_answered_exactly(built, case):
    index, queries = built
    mask, k = np.zeros(NUM_ITEMS + 1, dtype=np.bool_), 10
    if case == "restrictive filter":
        mask[::50] = True
    elif case == "nothing kept may be shown":
        mask[:] = True
        mask[index.plan.rows] = False
    else:
        mask[:], k = True, PLANNED_K + 20
    rows, scores = index.search(queries, k, allowed=[mask] * len(queries))
    own_rows, own_scores = index.exact.search(queries, k, allowed=[mask] * len(queries))
    assert np.array_equal(rows, own_rows)
    assert np.array_equal(scores, own_scores)


def test_included_items_are_found_though_they_are_not_kept_and_held_to_the_filters(built):
    index, queries = built
    query = queries[:1]
    not_kept = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), index.plan.rows)
    item = not_kept[np.argmax(index.exact.vectors[not_kept] @ query[0])]
    better = np.flatnonzero(index.exact.vectors @ query[0] > index.exact.vectors[item] @ query[0])
    mask = np.ones(NUM_ITEMS + 1, dtype=np.bool_)
    mask[item] = False

    def first(included, hidden=better, allowed=None):
        return index.search(query, 3, excluded=[hidden], included=[np.array(included)], allowed=[allowed])[0][0, 0]

    assert index.exact.search(query, 1, excluded=[better])[0][0, 0] == item
    assert first([0]) != item
    assert first([0, item, item]) == item
    assert first([item], hidden=np.append(better, item)) != item
    assert first([item], allowed=mask) != item


def test_equal_items_stand_in_row_order():
    vectors, queries = world(num_items=300)
    vectors[1:] = np.repeat(vectors[1:31], 10, axis=0)
    rows, scores = PrunedIndex(vectors, make_plan(vectors, queries)).search(queries[:20], 25)
    tied = scores[:, 1:] == scores[:, :-1]
    assert tied.any()
    assert (np.diff(rows, axis=1)[tied] > 0).all()


def test_an_index_file_holds_the_plan_and_knows_its_vectors(built):
    index, queries = built
    data = artifact.to_bytes(index)
    again = artifact.from_bytes(data, index.exact.vectors)
    assert isinstance(again, PrunedIndex)
    assert again.plan.recall == index.plan.recall
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


def test_a_plan_that_does_not_fit_is_refused():
    vectors = np.ones((10, 3), dtype=np.float32)
    for rows in ([], [0, 1], [1, 1], [10]):
        with pytest.raises(ValueError, match="each once"):
            PrunedIndex(vectors, Plan(np.array(rows, dtype=np.int64), np.eye(3, dtype=np.float32), 5, 1.0))
    for basis in (np.eye(4), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="directions"):
            PrunedIndex(vectors, Plan(np.array([1]), basis.astype(np.float32), 5, 1.0))


def test_what_cannot_be_planned_is_said():
    vectors, queries = world(num_items=200)
    with pytest.raises(ValueError, match="sample queries"):
        artifact.build(vectors, "pruned")
    with pytest.raises(ValueError, match=str(MIN_QUERIES)):
        artifact.build(vectors, "pruned", queries[: MIN_QUERIES - 1])
    with pytest.raises(ValueError, match="items"):
        artifact.build(vectors[:PLANNED_K], "pruned", queries)


def test_an_empty_batch_is_answered(built):
    index, queries = built
    rows, scores = index.search(queries[:0], 5)
    assert rows.shape == scores.shape == (0, 5)
    assert (ExactIndex(index.exact.vectors[:1]).search(queries[:2], 3)[0] == PAD_ROW).all()


def test_planning_ends_where_no_choice_finds_enough(monkeypatch):
    vectors, queries = world(num_items=1_000)
    monkeypatch.setattr(pruning, "cheapest", lambda *_: None)
    plan = make_plan(vectors, queries)
    assert len(plan.rows) == 1_000
    assert plan.basis.shape == (DIMENSION, DIMENSION)
    assert plan.recall == 1.0, "all items in all directions, and more candidates than asked for"
