"""Functions that several kinds of index share: the best of many approximate scores, and filters in approximate
searches.

Shapes: B queries, P approximate scores of each, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW, Mask, Rows, Vectors
from intentrec_core.kernels.dense import compiled, f32

#: Below this share of allowed rows, scoring the allowed ones costs less than skipping the many that are not allowed.
MIN_ALLOWED_RATIO = 0.25

#: Finite, so that a filtered item, which has a score of -inf, never reaches it.
_LOWEST = np.finfo(np.float32).min
_NOTHING = f32(-np.inf)

VectorsOf = Callable[[Rows], Vectors]


def floors_of_best(rough: Vectors, wanted: int, group_size: int) -> Vectors:
    """For each query, a score that its best ``wanted`` reach, and few others; the lowest number if a query has no more
    than these.

    The n-th largest maximum of disjoint groups is at most the n-th largest score, so one pass of maxima replaces a
    partition. Neighbours are in different groups. Shapes: f32[B, P] -> f32[B].
    """
    num_scores, group_size = rough.shape[1], max(1, group_size)
    num_groups = num_scores // group_size
    if num_groups <= wanted:
        if num_scores <= wanted:
            return np.full(len(rough), _LOWEST, dtype=np.float32)
        maxima, num_groups = rough, num_scores
    else:
        maxima = rough[:, : num_groups * group_size].reshape(len(rough), group_size, num_groups).max(axis=1)
    return np.maximum(np.partition(maxima, num_groups - wanted, axis=1)[:, num_groups - wanted], _LOWEST)


def places_above(rough: Vectors, floors: Vectors) -> tuple[Rows, Rows]:
    """The places of the scores that reach their query's floor, in order and query by query, and where each query's
    places end.

    Shapes: f32[B, P], f32[B] -> i64[any], i64[B].
    """
    # Places in one flat array: finding them by row and column takes ten times as long.
    flat = np.flatnonzero(rough >= np.maximum(floors, _LOWEST)[:, None])
    ends = np.searchsorted(flat, rough.shape[1] * np.arange(1, len(rough) + 1))
    return flat % max(1, rough.shape[1]), ends


def ends_of(candidates: Rows) -> Rows:
    """Where each query's candidates end after they are flattened. Shapes: i64[B, C] -> i64[B]."""
    return candidates.shape[1] * np.arange(1, len(candidates) + 1)


def best(vectors: Vectors, queries: Vectors, rows: Rows, ends: Rows, k: int) -> tuple[Rows, Vectors]:
    """The k best of each query's candidates, all scored exactly: ordered by score, then by row; padded.

    Candidates of query b are ``rows[ends[b - 1] : ends[b]]``, without repetition; row 0 and padding are ignored. Every
    index ends with this function, so that scores and ties do not depend on the batch, the kind of index, or the BLAS
    kernel that happened to compute a row.

    Shapes: vectors f32[V, D], queries f32[B, D], rows i64[candidates of all], ends i64[B] -> i64[B, k], f32[B, k].
    Cost: O(D + k) per candidate, O(D) for one that is not among the best so far; without the GIL.
    """
    found = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    _keep_best(vectors, queries, rows, ends, found, scores)
    return found, scores


@compiled
def _keep_best(vectors: Any, queries: Any, rows: Any, ends: Any, found: Any, scores: Any) -> None:
    k, at = found.shape[1], 0
    for b in range(queries.shape[0]):
        query, num = queries[b], 0
        while at < ends[b]:
            row = rows[at]
            at += 1
            if row <= 0:
                continue
            vector, score = vectors[row], f32(0)
            for d in range(query.shape[0]):
                score += vector[d] * query[d]
            place = num  # as _insert does it, which takes 1.1 times as long to call
            while place and (
                score > scores[b, place - 1] or (score == scores[b, place - 1] and row < found[b, place - 1])
            ):
                place -= 1
            if place == k or not score > _NOTHING:
                continue
            num = min(num + 1, k)
            for later in range(num - 1, place, -1):
                found[b, later], scores[b, later] = found[b, later - 1], scores[b, later - 1]
            found[b, place], scores[b, place] = row, score


@compiled
def _insert(found: Any, scores: Any, num: Any, row: Any, score: Any) -> Any:
    """Puts a row where it belongs among the ``num`` best so far, by score, then by row. Returns how many there are then."""
    k, place = found.shape[0], num
    while place and (score > scores[place - 1] or (score == scores[place - 1] and row < found[place - 1])):
        place -= 1
    if place == k or not score > _NOTHING:
        return num
    num = min(num + 1, k)
    for later in range(num - 1, place, -1):
        found[later], scores[later] = found[later - 1], scores[later - 1]
    found[place], scores[place] = row, score
    return num


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is left of the items that a rough search fetched, and what was to be included.

    ``num_fetched``: how many of a query's candidates were fetched. ``last``: the place of the last fetched item looked at.
    Shapes: rows i64[candidates of all], ends i64[B], num_fetched i64[B], last i64[B].
    """

    rows: Rows
    ends: Rows
    num_fetched: Rows
    last: Rows


def find_candidates(
    fetched: Rows,
    wanted: int,
    marks: Mask,
    excluded: Sequence[Rows] | None,
    allowed: Sequence[Mask | None] | None,
    included: Sequence[Rows] | None,
) -> Candidates:
    """The first ``wanted`` fetched rows of each query that may be shown, and the included ones that may be shown; each once.

    Shapes: fetched i64[B, F] with row 0 for none; marks bool[V], all false before and after; filters as in a search.
    Cost: O(F) per query and O(1) per row of a filter; numpy calls per different mask.
    """
    if allowed is not None:
        fetched = _allowed_only(fetched, allowed)
        if included is not None:
            included = [
                rows if mask is None else rows[mask[rows]] for rows, mask in zip(included, allowed, strict=True)
            ]
    hidden, hidden_ends = _flat(excluded, len(fetched))
    extra, extra_ends = _flat(included, len(fetched))
    rows = np.empty(len(fetched) * min(wanted, fetched.shape[1]) + len(extra), dtype=np.int64)
    ends, num_fetched, last = np.zeros((3, len(fetched)), dtype=np.int64)
    _collect(fetched, wanted, marks, hidden, hidden_ends, extra, extra_ends, rows, ends, num_fetched, last)
    return Candidates(rows, ends, num_fetched, last)


def _allowed_only(fetched: Rows, allowed: Sequence[Mask | None]) -> Rows:
    """The fetched rows, with row 0 for those that are not allowed. Shape: i64[B, F]."""
    members: dict[int, tuple[Mask, list[int]]] = {}
    for query, mask in enumerate(allowed):
        if mask is not None:
            members.setdefault(id(mask), (mask, []))[1].append(query)
    kept = fetched.copy()
    for mask, own in members.values():
        kept[own] *= mask[kept[own]]
    return kept


def _flat(per_query: Sequence[Rows] | None, num_queries: int) -> tuple[Rows, Rows]:
    """Rows of all queries in one array, and where each query's rows end. Shapes: i64[any], i64[B]."""
    if not per_query:
        return np.zeros(0, dtype=np.int64), np.zeros(num_queries, dtype=np.int64)
    return np.concatenate(per_query).astype(np.int64, copy=False), np.cumsum([len(rows) for rows in per_query])


@compiled
def _collect(
    fetched: Any,
    wanted: Any,
    marks: Any,
    hidden: Any,
    hidden_ends: Any,
    extra: Any,
    extra_ends: Any,
    rows: Any,
    ends: Any,
    num_fetched: Any,
    last: Any,
) -> None:
    """A mark says that a row is hidden, or a candidate already."""
    num = 0
    for b in range(fetched.shape[0]):
        hidden_from = hidden_ends[b - 1] if b else 0
        extra_from = extra_ends[b - 1] if b else 0
        begin = num
        marks[0] = True
        for place in range(hidden_from, hidden_ends[b]):
            marks[hidden[place]] = True
        place = 0
        while place < fetched.shape[1] and num - begin < wanted:
            row = fetched[b, place]
            if not marks[row]:
                marks[row] = True
                rows[num] = row
                num += 1
            place += 1
        num_fetched[b], last[b] = num - begin, place - 1
        for place in range(extra_from, extra_ends[b]):
            row = extra[place]
            if not marks[row]:
                marks[row] = True
                rows[num] = row
                num += 1
        ends[b] = num
        for place in range(begin, num):
            marks[rows[place]] = False
        for place in range(hidden_from, hidden_ends[b]):
            marks[hidden[place]] = False
    marks[0] = False


def with_offsets(
    rows: Rows,
    scores: Vectors,
    queries: Vectors,
    query: Rows,
    row: Rows,
    offset: Vectors,
    vectors_of: VectorsOf,
    num_rows: int,
) -> tuple[Rows, Vectors]:
    """The best k of a search's results and of items that have an offset on their score, ordered by score, then by row. The latter
    are scored exactly, and take the place of what the search found of them.

    Items whose offset is below 0 must be left out of the search, or better ones may be missing. ``vectors_of``: those of some
    rows; ``num_rows``: V. To the bit the same whatever other queries there are.

    Shapes: rows i64[B, k] and scores f32[B, k] as a search returns them; queries f32[B, D]; of the items with an offset the query
    i64[n], ascending, the row i64[n], each once for a query, and the offset f32[n] -> i64[B, k], f32[B, k].
    Cost: O(D + k + log n) for each of n, copies of the vectors of the different ones, and V bytes.
    """
    rows, scores, marks = rows.copy(), scores.copy(), np.zeros(num_rows, dtype=np.bool_)
    different, place_of = np.unique(row, return_inverse=True)
    vectors = np.ascontiguousarray(vectors_of(different), dtype=np.float32)
    ends = np.searchsorted(query, np.arange(len(rows)), side="right")
    _add_with_offsets(vectors, np.ascontiguousarray(queries), ends, row, place_of, offset, marks, rows, scores)
    return rows, scores


@compiled
def _add_with_offsets(
    vectors: Any,
    queries: Any,
    ends: Any,
    row_of: Any,
    place_of: Any,
    offset_of: Any,
    marks: Any,
    found: Any,
    scores: Any,
) -> None:
    """Does the work of :func:`with_offsets`, query by query. ``marks`` bool[V], all False before and after: which rows have an
    offset for the query at hand.
    """
    k, at = found.shape[1], 0
    for b in range(queries.shape[0]):
        query, begin, num = queries[b], at, 0
        for i in range(begin, ends[b]):
            marks[row_of[i]] = True
        for old in range(k):
            row, score = found[b, old], scores[b, old]
            if row > 0 and not marks[row]:
                found[b, num], scores[b, num] = row, score
                num += 1
        for rest in range(num, k):
            found[b, rest], scores[b, rest] = PAD_ROW, -np.inf
        for i in range(begin, ends[b]):
            row, vector, score = row_of[i], vectors[place_of[i]], f32(0)
            marks[row] = False
            for d in range(query.shape[0]):
                score += vector[d] * query[d]
            score += offset_of[i]
            if num < k or score >= scores[b, k - 1]:
                num = _insert(found[b], scores[b], num, row, score)
        at = ends[b]


def compile_with_offsets() -> None:
    """Compiles :func:`with_offsets`, which takes half a second where numba's cache is empty: before plays are answered."""
    rows, scores, vectors = np.ones((1, 1), np.int64), np.ones((1, 1), np.float32), np.ones((2, 1), np.float32)
    with_offsets(rows, scores, vectors[:1], rows[0], rows[0], scores[0], lambda some: vectors[some], 2)


def padded(found: list[Rows]) -> Rows:
    """Ragged rows as one array. Shape: i64[B, C], C at least 1."""
    rows = np.full((len(found), max(1, max((len(own) for own in found), default=0))), PAD_ROW, dtype=np.int64)
    for query, own in enumerate(found):
        rows[query, : len(own)] = own
    return rows


def allowed_ratios(num_items: int, num_queries: int, allowed: Sequence[Mask | None] | None) -> NDArray[np.float64]:
    """The share of items that each query may be shown. Shape: f64[B]."""
    if allowed is None:
        return np.ones(num_queries)
    known: dict[int, float] = {
        id(mask): np.count_nonzero(mask) / max(1, num_items) for mask in allowed if mask is not None
    }
    return np.array([1.0 if mask is None else min(1.0, known[id(mask)]) for mask in allowed])


def with_included(
    candidates: Rows,
    included: Sequence[Rows],
    excluded: Sequence[Rows] | None,
    allowed: Sequence[Mask | None] | None,
) -> Rows:
    """The candidates, followed by the rows of ``included`` that are not among them and may be shown.

    Shapes: i64[B, C] -> i64[B, C and more], padded.
    """
    added: list[Rows] = []
    for query, rows in enumerate(included):
        new = np.setdiff1d(rows, candidates[query])
        new = new[new > 0]
        mask = None if allowed is None else allowed[query]
        if mask is not None:
            new = new[mask[new]]
        added.append(new if excluded is None else np.setdiff1d(new, excluded[query]))
    return np.concatenate([candidates, padded(added)], axis=1)
