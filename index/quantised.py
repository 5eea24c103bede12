"""Product quantisation: FAISS scans 4-bit codes of the items with the processor's shuffles, and the best are scored exactly.

    vectors V × D ─▶ items that can be an answer P × D ─▶ directions R, balanced ─▶ codes P × M of 4 bits      once
    queries B × D ─▶ directions B × R ─▶ fast scan ─▶ filters ─▶ best C ─▶ exact scores ─▶ best k              each search

Codes are coarse: 16 values for each part of a vector. Four choices make them fine where it matters, all from sample queries:

- Only items that can be an answer get codes: twice as many as hold all answers of the samples, in order of potential
  (:func:`index.pruning.potential`). Otherwise the codes are spent on the many items that never score high.
- Directions are scaled by how far queries reach in them, so that an error of a code is an error of a score. Then they are turned
  to the items' principal axes, the 2·M widest are kept, and each part gets a wide one and a narrow one.
- Values of the codes are learned from items that are drawn by their length there: answers are far out, where few items are.

M, how much the length counts, and the number of candidates are the cheapest that find the wanted share of the exact answers to
other sample queries.

Source: product quantisation (Jégou et al., 2011), its balanced parts (Ge et al., 2013), fast scan (André et al., 2015);
decision 86.
Shapes: V item rows (row 0 no item), D dimensions, N sample queries, P items with codes, R directions, M parts of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import faiss
import numpy as np

from index.base import Rows, Vectors
from index.pruning import MIN_QUERIES, PLANNED_K, TARGET_RECALL, potential
from index.refined import SLACK, RefinedIndex

#: A worker's usual number of results; the number of candidates is measured for it and for PLANNED_K.
USUAL_K = 10
_NUM_PARTS = (16, 32)
#: Powers of the length by which items are drawn for training the codes.
_EMPHASES = (0, 4, 6)
_MAX_TRAINED = 8_192
_BITS = 4
#: FAISS recommends 39 training points for each of the 16 values of a part: k-means needs them.
MIN_ITEMS = 39 * 2**_BITS
#: Of the items that hold all answers of the samples; later queries ask for others.
_KEPT_FACTOR = 2.0
_FEWEST_KEPT = 1024
_MAX_JUDGED = 256
#: More candidates than the samples needed: there are a few hundred of them, and later queries differ.
_CANDIDATE_FACTOR = 1.5
#: Candidates of one result, at most: with more, exact search costs less.
_MAX_CANDIDATE_RATIO = 40
#: Codes that are scanned in the time that fetches and scores one candidate: 65 ns against 0.02 ns.
_CODES_PER_CANDIDATE = 3000
#: Of the mean square of a query's coordinate: what a direction counts that no sample reaches into.
_UNSEEN_RATIO = 0.01
#: Items whose principal axes are computed: more give the same axes.
_MAX_SAMPLED = 65_536
_SEED = 20240811


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The codes of the items, and how they are searched.

    Shapes: rows i64[P]; basis f32[D, R] turns queries to the codes' directions; ``codes`` is FAISS's index of P items. Candidates
    are those of 10 and of 100 results. ``recall`` is the share of the exact best 10 found for the queries it was judged by.
    """

    rows: Rows
    basis: Vectors
    codes: Any
    num_candidates: tuple[int, int]
    recall: float


class QuantisedIndex(RefinedIndex):
    """Searches 4-bit codes; see the module.

    Cost: time O(P · M) per query, some 50 times less than the product of the vectors; memory P · M / 2 bytes in addition to the
    vectors.
    Raises: ValueError for unsuitable vectors, or a quantisation of others.
    """

    def __init__(self, vectors: Vectors, quantisation: Quantisation) -> None:
        super().__init__(vectors)
        rows, basis, codes = quantisation.rows, quantisation.basis, quantisation.codes
        if basis.ndim != 2 or basis.shape != (self.dimension, codes.d) or not np.isfinite(basis).all():
            raise ValueError(
                f"the codes have directions of shape {basis.shape}; allowed: {(self.dimension, codes.d)}, finite"
            )
        if codes.ntotal != len(rows) or codes.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ValueError(f"there are codes of {codes.ntotal} items for {len(rows)} rows, or of another metric")
        if not len(rows) or rows.min() < 1 or rows.max() > self.num_items or len(np.unique(rows)) != len(rows):
            raise ValueError(f"codes must be of at least one of the rows 1 to {self.num_items}, each once")
        self.quantisation = quantisation
        # FAISS pads with id -1, which is the last place here: row 0.
        self._row_of_id = np.append(rows, 0)

    @property
    def num_searched(self) -> int:
        """See :meth:`index.refined.RefinedIndex.num_searched`."""
        return len(self.quantisation.rows)

    def num_candidates(self, k: int) -> int:
        """See :meth:`index.refined.RefinedIndex.num_candidates`."""
        few, many = self.quantisation.num_candidates
        if k > PLANNED_K:
            return 0
        return few if k <= USUAL_K else few + -(-(many - few) * (k - USUAL_K) // (PLANNED_K - USUAL_K))

    def num_needed(self, k: int) -> int:
        """The number of candidates that the samples needed."""
        return max(k, int(self.num_candidates(k) / _CANDIDATE_FACTOR))

    def rough(self, queries: Vectors, num_fetched: int) -> tuple[Vectors, Rows]:
        """See :meth:`index.refined.RefinedIndex.rough`."""
        scores, ids = self.quantisation.codes.search(queries @ self.quantisation.basis, num_fetched)
        return scores, self._row_of_id[ids]


def quantise(vectors: Vectors, queries: Vectors, target: float = TARGET_RECALL) -> Quantisation:
    """The cheapest codes that find a share of ``target`` of the exact best 10, and of the best 100, of held-out queries.

    If none do, these are the codes with the best recall.

    Half of the queries are used for fitting, the others (at most 256) for judging. The same input gives the same codes.

    Shapes: f32[V, D] with row 0 zero, f32[N, D].
    Raises: ValueError for too few queries or items.
    Cost: O(V · D²) time, an exact search for the judging queries, and P · M codes for each M.
    """
    if len(queries) < MIN_QUERIES:
        raise ValueError(f"{len(queries)} sample queries; product quantisation needs at least {MIN_QUERIES}")
    if len(vectors) - 1 < MIN_ITEMS:
        raise ValueError(f"{len(vectors) - 1} items; product quantisation needs at least {MIN_ITEMS}")
    fitted, judging = queries[::2], queries[1::2][:_MAX_JUDGED]
    _, truth = faiss.knn(judging, vectors[1:], PLANNED_K, metric=faiss.METRIC_INNER_PRODUCT)
    truth += 1
    rows = _kept_rows(vectors, fitted, truth, target)
    kept = vectors[rows]
    for_items, for_queries = _directions(kept, fitted)
    best_so_far: tuple[tuple[bool, float], Quantisation] | None = None
    for num_parts, emphasis in product(_NUM_PARTS, _EMPHASES):
        items, basis = _dealt(for_items, num_parts), _dealt(for_queries, num_parts)
        codes = _codes(kept @ items, num_parts, emphasis)
        num_candidates, recall, is_enough = _judged(codes, judging @ basis, rows, truth, target)
        cost = num_candidates[0] + len(rows) * num_parts / _CODES_PER_CANDIDATE
        rank = (not is_enough, cost if is_enough else -recall)
        if best_so_far is None or rank < best_so_far[0]:
            best_so_far = rank, Quantisation(rows, basis, codes, num_candidates, recall)
    assert best_so_far is not None
    return best_so_far[1]


def _kept_rows(vectors: Vectors, fitted: Vectors, truth: Rows, target: float) -> Rows:
    """The items that get codes, in row order. Shapes: f32[V, D], f32[N, D], i64[N, K] rows of the true answers -> i64[P]."""
    order = 1 + np.argsort(-potential(vectors[1:], fitted), kind="stable")
    place = np.empty(len(vectors), dtype=np.int64)
    place[order] = np.arange(len(order))
    furthest = 1 + int(place[truth[:, :USUAL_K]].max())
    enough = 1 + int(np.quantile(place[truth], (1.0 + target) / 2.0, method="higher"))
    num_kept = max(_FEWEST_KEPT, int(_KEPT_FACTOR * furthest), enough)
    return np.sort(order[:num_kept])


def _directions(kept: Vectors, fitted: Vectors) -> tuple[Vectors, Vectors]:
    """What turns items and queries to the codes' directions, the widest first; inner products stay as they are.

    Shapes: f32[P, D], f32[N, D] -> f32[D, D] each.
    """
    doubled = fitted.astype(np.float64)
    reach = doubled.T @ doubled / len(doubled)
    reach += _UNSEEN_RATIO * np.trace(reach) / len(reach) * np.eye(len(reach))
    squares, axes = np.linalg.eigh(reach)
    for_items, for_queries = axes * np.sqrt(squares), axes / np.sqrt(squares)
    sampled = kept[:: 1 + len(kept) // _MAX_SAMPLED] @ for_items
    _, turn = np.linalg.eigh(np.cov(sampled.T).reshape(2 * (kept.shape[1],)))
    turn = turn[:, ::-1]
    return (for_items @ turn).astype(np.float32), (for_queries @ turn).astype(np.float32)


def _dealt(side: Vectors, num_parts: int) -> Vectors:
    """The widest directions, two for each part: a wide one and a narrow one. Zeros stand in for directions there are not.

    Shapes: f32[D, D] -> f32[D, 2 · M].
    """
    num = 2 * num_parts
    padded = np.pad(side, ((0, 0), (0, max(0, num - side.shape[1]))))[:, :num]
    pairs = np.stack([np.arange(num_parts), num - 1 - np.arange(num_parts)], axis=1)
    return np.ascontiguousarray(padded[:, pairs.ravel()])


def _codes(projected: Vectors, num_parts: int, emphasis: int) -> Any:
    """FAISS's index of the items. Shape: f32[P, 2 · M]."""
    centred = projected - projected.mean(axis=0)
    weights = np.einsum("pr,pr->p", centred, centred, dtype=np.float64) ** (emphasis / 2)
    total = weights.sum()
    even = np.full(len(weights), 1.0 / len(weights))
    drawn = np.random.default_rng(_SEED).choice(
        len(projected), min(_MAX_TRAINED, 4 * len(projected)), p=weights / total if total > 0 else even
    )
    codes = faiss.IndexPQFastScan(projected.shape[1], num_parts, _BITS, faiss.METRIC_INNER_PRODUCT)
    codes.pq.cp.seed = _SEED
    codes.pq.cp.max_points_per_centroid = _MAX_TRAINED
    codes.train(projected[drawn])
    codes.add(projected)
    return codes


def _judged(
    codes: Any, queries: Vectors, rows: Rows, truth: Rows, target: float
) -> tuple[tuple[int, int], float, bool]:
    """Candidates needed for 10 and for 100 results, the recall of the best 10, and whether both reach the target.

    Shapes: f32[N, R], i64[P], i64[N, K].
    """
    limit = min(len(rows), _MAX_CANDIDATE_RATIO * PLANNED_K)
    _, ids = codes.search(queries, limit)
    ranks = np.full(truth.shape, limit)
    rank_of_row = np.full(1 + int(max(rows.max(), truth.max())), limit)
    for query, found in enumerate(rows[ids]):
        rank_of_row[found] = np.arange(limit)
        ranks[query] = rank_of_row[truth[query]]
        rank_of_row[found] = limit
    candidates, is_enough = [], True
    for k in (USUAL_K, PLANNED_K):
        num_needed = 1 + int(np.quantile(ranks[:, :k], target, method="higher"))
        is_enough &= num_needed <= min(limit, _MAX_CANDIDATE_RATIO * k)
        candidates.append(min(limit, max(k + SLACK, int(_CANDIDATE_FACTOR * num_needed))))
    few, many = candidates
    return (few, max(few, many)), float(np.mean(ranks[:, :USUAL_K] < few)), is_enough
