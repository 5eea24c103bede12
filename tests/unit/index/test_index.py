"""The index against a plain numpy reference. Small whole numbers make every score exact, so rows must be equal, ties too."""

from __future__ import annotations

from typing import get_args

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from index import artifact
from index.base import PAD_ROW
from index.candidates import with_offsets
from index.exact import ExactIndex
from index.extended import ExtendedIndex
from index.faiss_index import FaissIndex
from index.recall import recall_at_k
from intentrec_core.errors import BundleError, BundleFault
from stream.settings import IndexChoice

EQUAL_TO_EXACT = ("exact", "flat")
KINDS = ("exact", "flat", "hnsw", "ivf")


def reference(vectors, query, k, excluded, mask):
    """Score everything, sort, take k: what every index must agree with."""
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    rows = [r for r in range(1, len(vectors)) if r not in set(excluded) and (mask is None or mask[r])]
    rows.sort(key=lambda r: (-scores[r], r))
    rows = rows[:k]
    return rows + [PAD_ROW] * (k - len(rows)), [scores[r] for r in rows] + [-np.inf] * (k - len(rows))


def whole_vectors(rng, num_rows, dimension, spread):
    return rng.integers(-spread, spread + 1, size=(num_rows, dimension)).astype(np.float32)


@st.composite
def searches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_rows = draw(st.sampled_from([1, 2, 5, 40, 700]))
    spread = draw(st.sampled_from([0, 1, 5, 1000]))  # 0: all items tie
    vectors = whole_vectors(rng, num_rows, 6, spread)
    queries = whole_vectors(rng, draw(st.integers(0, 5)), 6, max(1, spread))
    excluded = [rng.integers(0, num_rows, size=rng.integers(0, 30)) for _ in queries]
    ratios = rng.choice([0.0, 0.02, 0.3, 0.9, 1.0], size=3)
    masks = [None, *(rng.random(num_rows) < ratio for ratio in ratios)]
    allowed = [masks[rng.integers(0, 4)] for _ in queries]
    return vectors, queries, draw(st.sampled_from([1, 3, 10, 50])), excluded, allowed


@pytest.mark.parametrize("kind", EQUAL_TO_EXACT)
@settings(max_examples=80, deadline=None)
@given(search=searches())
def test_equals_the_numpy_reference_ties_and_padding_included(kind, search):
    vectors, queries, k, excluded, allowed = search
    rows, scores = artifact.build(vectors, kind).search(queries, k, excluded=excluded, allowed=allowed)
    for i, query in enumerate(queries):
        want_rows, want_scores = reference(vectors, query, k, excluded[i], allowed[i])
        assert rows[i].tolist() == want_rows
        assert scores[i].tolist() == want_scores


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
@settings(max_examples=30, deadline=None)
@given(search=searches())
def test_an_approximate_index_never_returns_fewer_items_than_may_be_shown_nor_one_that_may_not(kind, search):
    vectors, queries, k, excluded, allowed = search
    rows, scores = artifact.build(vectors, kind).search(queries, k, excluded=excluded, allowed=allowed)
    for i in range(len(queries)):
        shown = set(range(1, len(vectors))) - set(excluded[i].tolist())
        if allowed[i] is not None:
            shown &= set(np.flatnonzero(allowed[i]).tolist())
        got = [row for row in rows[i].tolist() if row != PAD_ROW]
        assert len(got) == len(set(got)) == min(k, len(shown))
        assert set(got) <= shown
        assert (np.diff(scores[i][: len(got)]) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_does_not_depend_on_the_other_queries_of_its_batch(kind):
    rng = np.random.default_rng(1)
    index = artifact.build(rng.normal(size=(6000, 33)).astype(np.float32), kind)
    queries = rng.normal(size=(9, 33)).astype(np.float32)
    rows, scores = index.search(queries, 10)
    for i in range(len(queries)):
        alone_rows, alone_scores = index.search(queries[i : i + 1], 10)
        assert alone_rows[0].tolist() == rows[i].tolist()
        assert alone_scores[0].tolist() == scores[i].tolist()  # to the bit


@pytest.mark.parametrize(("num_rows", "num_queries", "dimension"), [(203, 1, 1000), (5003, 1, 1000), (5003, 11, 37)])
def test_copies_of_one_item_stand_in_row_order_though_a_matrix_product_may_round_them_apart(
    num_rows, num_queries, dimension
):
    rng = np.random.default_rng(8)
    vectors = np.tile(rng.normal(size=dimension).astype(np.float32), (num_rows, 1))
    queries = (vectors[1] + rng.normal(size=(num_queries, dimension))).astype(np.float32)
    for kind in EQUAL_TO_EXACT:
        index = artifact.build(vectors, kind)
        for k in (1, 10):
            for sign in (1, -1):  # whichever copies are rounded up, here or there they are not the first ones
                rows, _ = index.search(sign * queries, k)
                assert rows.tolist() == [list(range(1, 1 + k))] * num_queries


def test_grouped_maxima_find_the_same_as_sorting_where_there_are_many_items():
    rng = np.random.default_rng(2)
    vectors = whole_vectors(rng, 20_011, 4, 9)  # not a multiple of the group size; many ties
    queries = whole_vectors(rng, 6, 4, 9)
    excluded = [rng.integers(0, 20_011, size=200) for _ in queries]
    mask = rng.random(20_011) < 0.5
    rows, _ = ExactIndex(vectors).search(queries, 10, excluded=excluded, allowed=[mask] * 6)
    assert rows.tolist() == [reference(vectors, q, 10, excluded[i], mask)[0] for i, q in enumerate(queries)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_restrictive_filter_is_searched_exactly(kind):
    rng = np.random.default_rng(3)
    vectors = whole_vectors(rng, 5000, 8, 50)
    mask = np.zeros(5000, dtype=np.bool_)
    mask[rng.choice(5000, size=12, replace=False)] = True
    query = whole_vectors(rng, 1, 8, 50)
    rows, _ = artifact.build(vectors, kind).search(query, 10, allowed=[mask])
    assert rows[0].tolist() == reference(vectors, query[0], 10, [], mask)[0]


@pytest.mark.parametrize(("kind", "least"), [("hnsw", 0.9), ("ivf", 0.85)])
def test_recall_of_approximate_kinds_on_clustered_items(kind, least):
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(40, 24))
    vectors = (centres[rng.integers(0, 40, 5000)] + 0.6 * rng.normal(size=(5000, 24))).astype(np.float32)
    queries = (centres[rng.integers(0, 40, 50)] + rng.normal(size=(50, 24))).astype(np.float32)
    index = FaissIndex(vectors, kind)
    assert recall_at_k(index, index.exact, queries, 10) >= least


def test_recall_of_the_exact_index_is_one_and_of_an_empty_one_too():
    vectors = np.ones((30, 3), dtype=np.float32)  # all tie: another item of the same score counts as found
    index = ExactIndex(vectors)
    assert recall_at_k(index, index, np.ones((2, 3), dtype=np.float32), 10) == 1.0
    empty = ExactIndex(vectors[:1])
    assert recall_at_k(empty, empty, np.ones((2, 3), dtype=np.float32), 10) == 1.0


def test_included_items_are_scored_exactly_though_the_graph_misses_them():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(3000, 8)).astype(np.float32)
    index = FaissIndex(vectors, "hnsw")
    index.faiss.reset()  # a graph that finds other items: the vectors of the exact side are reversed in it
    index.faiss.add(np.c_[vectors[:0:-1], np.zeros(2999, dtype=np.float32)])
    query = vectors[7:8]
    truth = reference(vectors, query[0], 1, [], None)[0][0]
    assert index.search(query, 1)[0][0, 0] != truth
    assert index.search(query, 1, included=[np.array([0, truth, truth])])[0][0, 0] == truth


def test_included_items_are_held_to_the_filters():
    vectors = np.eye(40, dtype=np.float32)
    index = FaissIndex(vectors, "ivf")
    mask = np.ones(40, dtype=np.bool_)
    mask[7] = False
    rows, _ = index.search(
        vectors[7:8], 38, excluded=[np.array([8])], allowed=[mask], included=[np.array([0, 7, 8, 9])]
    )
    assert set(rows[0].tolist()) & {0, 7, 8} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_file_brings_back_the_same_index(kind, tmp_path):
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(900, 12)).astype(np.float32)
    queries = rng.normal(size=(4, 12)).astype(np.float32)
    index = artifact.build(vectors, kind)
    (tmp_path / "index.faiss").write_bytes(artifact.to_bytes(index))
    again = artifact.load(tmp_path / "index.faiss", vectors)
    assert type(again) is type(index)
    assert np.array_equal(again.search(queries, 10)[0], index.search(queries, 10)[0])
    assert artifact.to_bytes(again) == (tmp_path / "index.faiss").read_bytes()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_an_index_file_of_other_vectors_is_refused(kind):
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(900, 12)).astype(np.float32)
    data = artifact.to_bytes(artifact.build(vectors, kind))
    others = {"fewer items": vectors[:-1], "wider": np.c_[vectors, vectors[:, :1]], "others": vectors[::-1].copy()}
    for other in others.values():
        with pytest.raises(BundleError) as refused:
            artifact.from_bytes(data, other, "b1")
        assert refused.value.fault is BundleFault.SHAPE
    for row in range(1, 900, 37):
        one = vectors.copy()
        one[row, 5] += 1e-3
        with pytest.raises(
            BundleError, match=r"bundle b1: shape: index: it was made for other vectors .* train a new bundle"
        ):
            artifact.from_bytes(data, one, "b1")


@pytest.mark.parametrize("fault", ["missing", "doubled", "twice beside the others"])
def test_an_index_file_whose_lists_lack_or_repeat_an_item_is_refused(fault, monkeypatch):
    """Whatever is in the memory into which FAISS does not write: here the right vectors, as after a good load."""
    rng = np.random.default_rng(10)
    vectors = rng.normal(size=(900, 12)).astype(np.float32)
    index = artifact.build(vectors, "ivf")
    lists = index.faiss.invlists
    length = lists.list_size(0)
    assert length > 1
    ids = faiss.rev_swig_ptr(lists.get_ids(0), length).copy()
    codes = faiss.rev_swig_ptr(lists.get_codes(0), length * lists.code_size).copy()
    if fault == "missing":
        ids[0] = 10**6
        lists.update_entries(0, 0, length, faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    elif fault == "doubled":
        ids[1], codes[lists.code_size : 2 * lists.code_size] = ids[0], codes[: lists.code_size]
        lists.update_entries(0, 0, length, faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    else:
        lists.add_entries(0, 1, faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    data = bytes(faiss.serialize_index(index.faiss).tobytes())
    monkeypatch.setattr(np, "empty", lambda *_, **__: vectors[1:].copy())
    with pytest.raises(BundleError, match="shape: index: it was made for other vectors"):
        artifact.from_bytes(data, vectors)


def test_a_file_that_faiss_wrote_is_served_as_it_always_was():
    """Bundles hold FAISS's own format for these kinds, whichever version of ours wrote them."""
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(900, 12)).astype(np.float32)
    squares = (vectors[1:] ** 2).sum(axis=1, dtype=np.float64)
    made = {
        "flat": (faiss.IndexFlatIP(12), vectors[1:]),
        "hnsw": (
            faiss.IndexHNSWFlat(13, 32),
            np.c_[vectors[1:], np.sqrt(squares.max() - squares) + 1e-6].astype(np.float32),  # as another machine rounds
        ),
        "ivf": (faiss.IndexIVFFlat(faiss.IndexFlatIP(12), 12, 8, faiss.METRIC_INNER_PRODUCT), vectors[1:]),
    }
    for kind, (own, content) in made.items():
        own.train(content)
        own.add(content)
        read = artifact.from_bytes(bytes(faiss.serialize_index(own).tobytes()), vectors)
        assert artifact.kind_of(read) == kind
        assert recall_at_k(read, ExactIndex(vectors), rng.normal(size=(50, 12)).astype(np.float32), 10) > 0.95


@pytest.mark.parametrize("kind", ["pq-refine", "pruned"])
def test_a_plan_that_does_not_say_whose_it_is_is_refused_with_the_remedy(kind):
    rng = np.random.default_rng(9)
    vectors = rng.normal(size=(900, 12)).astype(np.float32)
    data = artifact.to_bytes(artifact.build(vectors, kind, rng.normal(size=(400, 12)).astype(np.float32)))
    magic, arrays = data[: data.index(b"\n") + 1], data[data.index(b"\n") + 1 :]
    without = save({name: array for name, array in load(arrays).items() if name != "vectors"})
    with pytest.raises(BundleError, match=r"shape: index: it has no digest of its vectors, .* train a new bundle"):
        artifact.from_bytes(magic + without, vectors, "b1")


def test_index_files_that_cannot_be_read_are_refused(tmp_path):
    vectors = np.ones((3, 2), dtype=np.float32)
    with pytest.raises(BundleError, match="shape: index"):
        artifact.from_bytes(b"no index at all", vectors)
    with pytest.raises(BundleError) as missing:
        artifact.load(tmp_path / "index.faiss", vectors)
    assert missing.value.fault is BundleFault.MISSING_FILE
    with pytest.raises(BundleError) as not_finite:
        artifact.from_bytes(artifact.to_bytes(ExactIndex(vectors)), vectors * np.nan)
    assert not_finite.value.fault is BundleFault.NOT_FINITE


@pytest.mark.parametrize("kind", EQUAL_TO_EXACT)
@settings(max_examples=80, deadline=None)
@given(search=searches(), num_with=st.integers(0, 12))
def test_items_with_an_offset_beside_an_index_rank_as_all_items_scored_with_it(kind, search, num_with):
    """Those that an offset lowers are left out of the search, and no others."""
    vectors, queries, k, excluded, _ = search
    index, rng = artifact.build(vectors, kind), np.random.default_rng(num_with)
    items, scores = np.arange(1, len(vectors)), np.einsum("nd,qd->qn", vectors, queries)
    query, row, offset = [items[:0]], [items[:0]], [scores[:0, 0]]
    for number, hidden in enumerate(excluded):
        own = rng.permutation(np.setdiff1d(items, hidden))[:num_with]
        added = rng.integers(-3, 4, size=len(own)).astype(np.float32)
        scores[number, own] += added
        scores[number, [0, *hidden]] = -np.inf
        query.append(np.full(len(own), number))
        row.append(own)
        offset.append(added)
    left_out = [
        np.append(*both)
        for both in zip(excluded, [r[o < 0] for r, o in zip(row[1:], offset[1:], strict=True)], strict=True)
    ]
    found, given_scores = with_offsets(
        *index.search(queries, k, excluded=left_out),
        queries,
        np.concatenate(query),
        np.concatenate(row),
        np.concatenate(offset),
        index.vectors_of,
        len(vectors),
    )
    for number, whole in enumerate(scores):
        best = np.lexsort((np.arange(len(whole)), -whole))[:k]
        best = best[np.isfinite(whole[best])]
        assert found[number].tolist() == [*best.tolist(), *[PAD_ROW] * (k - len(best))]
        np.testing.assert_array_equal(given_scores[number, : len(best)], whole[best])
        assert np.isneginf(given_scores[number, len(best) :]).all()


@pytest.mark.parametrize("kind", [*KINDS, "pruned", "pq-refine"])
def test_the_vectors_of_items_are_those_that_are_scored(kind):
    rng = np.random.default_rng(0)
    vectors, asked = (rng.normal(size=(rows, 8)).astype(np.float32) for rows in (900, 256))
    rows = np.array([899, 1, 1])
    np.testing.assert_array_equal(artifact.build(vectors, kind, asked).vectors_of(rows), vectors[rows])
    index = ExtendedIndex(artifact.build(vectors[:700], kind, asked), vectors[700:])
    np.testing.assert_array_equal(index.vectors_of(np.array([700, 699, 899])), vectors[[700, 699, 899]])


def test_row_zero_may_hold_anything_and_is_never_found():
    vectors = np.ones((4, 2), dtype=np.float32)
    vectors[0] = -np.inf
    for kind in KINDS:
        rows, _ = artifact.build(vectors, kind).search(np.ones((1, 2), dtype=np.float32), 10)
        assert rows[0].tolist() == [1, 2, 3] + [PAD_ROW] * 7


@pytest.mark.parametrize(
    "arguments",
    [
        {"queries": np.ones((2, 3), dtype=np.float32)},
        {"queries": np.full((2, 2), np.nan, dtype=np.float32)},
        {"k": 0},
        {"excluded": [np.array([1])]},
        {"excluded": [np.array([1]), np.array([5])]},
        {"included": [np.array([-1]), np.array([1])]},
        {"allowed": [None]},
        {"allowed": [None, np.ones(4, dtype=np.bool_)]},
        {"allowed": [None, np.ones(5)]},
    ],
)
def test_a_search_with_wrong_arguments_is_refused(arguments):
    index = ExactIndex(np.ones((5, 2), dtype=np.float32))
    asked = {"queries": np.ones((2, 2), dtype=np.float32), "k": 3} | arguments
    with pytest.raises(ValueError, match=r"quer|k is|rows|mask"):
        index.search(asked.pop("queries"), asked.pop("k"), **asked)


def test_vectors_that_are_not_finite_are_refused():
    vectors = np.ones((5, 2), dtype=np.float32)
    vectors[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        ExactIndex(vectors)
    with pytest.raises(ValueError, match="kind"):
        artifact.build(np.ones((5, 2), dtype=np.float32), "annoy")


def test_the_kinds_that_can_be_asked_for_are_those_of_the_setting():
    assert get_args(IndexChoice) == artifact.CHOICES


def test_many_queries_at_once_are_answered_as_one_at_a_time():
    rng = np.random.default_rng(5)
    index = ExactIndex(rng.normal(size=(1003, 7)).astype(np.float32))
    queries = rng.normal(size=(70, 7)).astype(np.float32)  # more than are scored by the kernel for a few
    excluded = [rng.integers(1, 1003, size=5) for _ in queries]
    allowed = [None if query % 2 else rng.random(1003) < 0.7 for query in range(len(queries))]
    rows, scores = index.search(queries, 9, excluded=excluded, allowed=allowed)
    for query in range(len(queries)):
        one = slice(query, query + 1)
        alone = index.search(queries[one], 9, excluded=excluded[one], allowed=allowed[one])
        np.testing.assert_array_equal(rows[one], alone[0])
        np.testing.assert_array_equal(scores[one], alone[1])
