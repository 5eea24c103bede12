"""Plans which items a search has to look at, and in how few dimensions, from sample queries of the model.

Of a million items, most are never an answer: learned vectors differ in length and bias, and one model's queries point
in similar directions. How high an item can score follows from its mean score over the queries and its variation,

    potential(v) = μ·v + 2·sqrt(vᵀ C v)        μ, C: mean and covariance of the queries

and the items with the highest potential, scored in the leading directions of the queries, contain the answers. The
numbers of items, of directions and of candidates to score exactly are not guessed: the plan is the cheapest choice that
finds the wanted share of the exact answers to queries that were not used for fitting. The last choice is all items in
all directions.

This is static pruning of an index, for inner products. It assumes nothing about the items' geometry (inverted lists
need clusters, which these vectors do not have).

Shapes: V item rows (row 0 no item), D dimensions, N sample queries, P items kept, R directions, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from index.base import Rows, Vectors

#: The number of results that a plan is made for. A search for more uses exact search.
PLANNED_K = 100
#: Share of the exact answers found for held-out queries. It is above the promised 0.99, because later queries differ.
TARGET_RECALL = 0.995
#: With fewer queries a recall of 0.995 cannot be measured: 64 held-out queries have 6,400 answers.
MIN_QUERIES = 128
_DEVIATIONS = 2.0
_MAX_JUDGED = 256
_FEWEST_KEPT = 4096
_NUM_DIRECTIONS = (8, 16, 24, 32, 48, 64, 96, 128)
_CANDIDATE_RATIOS = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0)
#: A number read from a random row costs as much as this many numbers in a matrix product: 2 ns against 0.04.
_FETCH_COST = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """The items and directions that a pruned search looks at.

    Shapes: rows i64[P], highest potential first; basis f32[D, R], orthonormal. ``recall`` is the recall on held-out
    queries.
    """

    rows: Rows
    basis: Vectors
    num_candidates: int
    recall: float


def make_plan(vectors: Vectors, queries: Vectors, target: float = TARGET_RECALL) -> Plan:
    """The cheapest plan that finds a share of ``target`` of the exact best 100 of held-out queries.

    Half of the queries are used for fitting, the others (at most 256) for measuring.

    Shapes: f32[V, D] with row 0 zero, f32[N, D].
    Raises: ValueError for too few queries or items.
    Cost: O(V · D²) time, and an exact search for the measuring queries.
    """
    if len(queries) < MIN_QUERIES:
        raise ValueError(f"{len(queries)} sample queries; a pruned index needs at least {MIN_QUERIES}")
    if len(vectors) <= PLANNED_K:
        raise ValueError(f"{len(vectors) - 1} items; a pruned index needs at least {PLANNED_K}")
    fitted, judging = queries[::2], queries[1::2][:_MAX_JUDGED]
    order = 1 + np.argsort(-potential(vectors[1:], fitted), kind="stable")
    _, truth = faiss.knn(judging, vectors[1:], PLANNED_K, metric=faiss.METRIC_INNER_PRODUCT)
    place = np.empty(len(vectors), dtype=np.int64)
    place[order] = np.arange(len(order))
    true_places = place[truth + 1]
    basis = _directions(fitted)
    # Half of the permitted misses are reserved for pruning, half for rounding and projection.
    num_kept = int(np.quantile(true_places, (1.0 + target) / 2.0, method="higher")) + 1
    num_kept = min(len(order), max(_FEWEST_KEPT, num_kept))
    while True:
        found = cheapest(vectors[order[:num_kept]], judging, true_places, basis, target)
        if found is not None:
            num_directions, num_candidates, recall = found
            return Plan(order[:num_kept], np.ascontiguousarray(basis[:, :num_directions]), num_candidates, recall)
        if num_kept == len(
            order
        ):  # even all items miss the target, because too many score alike: take the best plan there is
            num_candidates = min(num_kept, int(PLANNED_K * max(_CANDIDATE_RATIOS)))
            ranks = _ranks((judging @ basis) @ (vectors[order] @ basis).T, true_places)
            return Plan(order, basis, num_candidates, float(np.mean(ranks < num_candidates)))
        num_kept = min(len(order), 2 * num_kept)


def potential(items: Vectors, queries: Vectors) -> NDArray[np.float32]:
    """How high each item scores with the queries that favour it. Shapes: f32[V, D], f32[N, D] -> f32[V]."""
    mean = queries.mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(queries.T, dtype=np.float64).reshape(2 * (queries.shape[1],)))
    spread = (directions * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
    scattered = items @ spread
    deviation = np.sqrt(np.einsum("vd,vd->v", scattered, scattered))
    highest: NDArray[np.float32] = items @ mean + np.float32(_DEVIATIONS) * deviation
    return highest


def _directions(queries: Vectors) -> Vectors:
    """An orthonormal basis, ordered by the length of the queries in each direction, longest first. Shape: f32[D, D]."""
    doubled = queries.astype(np.float64)
    _, directions = np.linalg.eigh(doubled.T @ doubled)
    return np.ascontiguousarray(directions[:, ::-1], dtype=np.float32)


def cheapest(
    kept: Vectors, queries: Vectors, true_places: Rows, basis: Vectors, target: float
) -> tuple[int, int, float] | None:
    """Directions, candidates and recall of the cheapest search of these items that reaches the target.

    Shapes: f32[P, D], f32[N, D], i64[N, K] places of the true answers (P and more: not kept), f32[D, D].
    """
    num_kept, dimension = kept.shape
    found: list[tuple[float, int, int, float]] = []
    for num_directions in sorted({min(width, dimension) for width in (*_NUM_DIRECTIONS, dimension)}):
        part = basis[:, :num_directions]
        ranks = _ranks((queries @ part) @ (kept @ part).T, true_places)
        for ratio in _CANDIDATE_RATIOS:
            num_candidates = min(num_kept, int(PLANNED_K * ratio))
            recall = float(np.mean(ranks < num_candidates))
            if recall >= target:
                cost = num_kept * num_directions + _FETCH_COST * num_candidates * dimension
                found.append((cost, num_directions, num_candidates, recall))
                break
    return min(found)[1:] if found else None


def _ranks(scores: Vectors, true_places: Rows) -> NDArray[np.int64]:
    """For each true answer, the number of items that score higher, or a number too high for a candidate; P if it is not
    kept.

    Shapes: f32[N, P], i64[N, K] -> i64[N, K].
    """
    num_kept = scores.shape[1]
    looked_at = min(num_kept, int(PLANNED_K * max(_CANDIDATE_RATIOS)))
    own = np.take_along_axis(scores, np.minimum(true_places, num_kept - 1), axis=1)
    top = np.sort(np.partition(scores, num_kept - looked_at, axis=1)[:, num_kept - looked_at :], axis=1)
    higher = np.array([looked_at - np.searchsorted(row, mine, "right") for row, mine in zip(top, own, strict=True)])
    return np.where(true_places < num_kept, higher, num_kept)
