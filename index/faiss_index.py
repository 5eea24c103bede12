"""FAISS with the interface of all indexes: fetches more than k items, filters, scores exactly, and falls back if too
few are left.

    queries ─▶ FAISS, k + excluded + slack ─▶ filters ─▶ exact scores ─▶ best k
                                                 └─ too few, or a tie cut off: exact search over the allowed rows

``flat`` returns the same results as :class:`index.exact.ExactIndex`, ties included. ``hnsw`` and ``ivf`` may miss an
item that belongs to the best (see :func:`index.recall.recall_at_k`), but return k items whenever k may be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import faiss
import numpy as np

from index.base import (
    PAD_ROW,
    Mask,
    Rows,
    Vectors,
    check_search,
    longest_vector,
    picked,
    rounding_margin,
)
from index.candidates import MIN_ALLOWED_RATIO, allowed_ratios, best, ends_of, with_included
from index.exact import ExactIndex

#: Candidates in addition to k that are scored exactly, so that rounding at the limit does not cause a fallback.
SLACK = 16
_HNSW_LINKS = 32
_HNSW_BUILD = 200
_HNSW_SEARCH = 256
_IVF_PROBES_RATIO = 0.1
#: A tenth of the lists of a large catalogue contain most answers. A small catalogue has few lists and needs a larger
#: share.
_IVF_MIN_PROBES = 24
#: FAISS's recommendation for the number of training points per list.
_IVF_MIN_PER_LIST = 39
_SEED = 20240811


class IndexKind(StrEnum):
    """How FAISS stores the vectors."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"


class FaissIndex:
    """A FAISS index over rows 1 to V - 1, with an exact index over the same vectors as the fallback.

    ``vectors`` has row 0. FAISS numbers its items from 0, so its id is the row minus one.
    Cost: twice the memory of the vectors; search time depends on the kind, plus exact search for the queries that fall
    back.
    """

    def __init__(self, vectors: Vectors, kind: IndexKind | str = IndexKind.FLAT, *, built: Any = None) -> None:
        """Builds the index, or takes an index that was ``built`` over the same vectors.

        Raises: ValueError for unsuitable vectors, or a built index with another size, dimension or metric.
        """
        self.kind = IndexKind(kind)
        self.exact = ExactIndex(vectors)
        self.faiss = self._build() if built is None else built
        self._check_built()
        self._longest = longest_vector(self.exact.vectors)
        self._configure()

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0."""
        return self.exact.num_items

    @property
    def dimension(self) -> int:
        """D: the number of dimensions."""
        return self.exact.dimension

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        excluded: Sequence[Rows] | None = None,
        allowed: Sequence[Mask | None] | None = None,
        included: Sequence[Rows] | None = None,
    ) -> tuple[Rows, Vectors]:
        """See :meth:`index.base.ItemIndex.search`."""
        queries = check_search(self, queries, k, excluded, allowed, included)
        rows = np.full((len(queries), k), PAD_ROW, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        ratios = allowed_ratios(self.num_items, len(queries), allowed)
        wide = np.flatnonzero(ratios >= MIN_ALLOWED_RATIO)
        incomplete = np.flatnonzero(ratios < MIN_ALLOWED_RATIO)
        if len(wide) and self.num_items:
            hidden = max((len(rows) for rows in picked(excluded, wide) or ()), default=0)
            num_fetched = min(self.num_items, hidden + int(np.ceil((k + SLACK) / ratios[wide].min())))
            filters = picked(excluded, wide), picked(allowed, wide), picked(included, wide)
            rows[wide], scores[wide], complete = self._search_wide(queries[wide], k, num_fetched, *filters)
            incomplete = np.concatenate([incomplete, wide[~complete]])
        if len(incomplete):
            rows[incomplete], scores[incomplete] = self.exact.search(
                queries[incomplete], k, excluded=picked(excluded, incomplete), allowed=picked(allowed, incomplete)
            )
        return rows, scores

    def holds_its_vectors(self, num_rows: int) -> bool:
        """Whether FAISS's content equals the vectors, checked on ``num_rows`` rows spread over all of them."""
        extended = self._extended()
        sampled = np.unique(np.linspace(0, max(0, self.num_items - 1), num_rows).astype(np.int64))
        if self.kind is IndexKind.IVF:
            self.faiss.make_direct_map()  # without it an IVF index does not know which list holds a row
        equal = not self.num_items or all(np.array_equal(self.faiss.reconstruct(int(i)), extended[i]) for i in sampled)
        if self.kind is IndexKind.IVF:
            self.faiss.set_direct_map_type(0)  # NoMap, the state in which it is saved
        return equal

    def _search_wide(
        self,
        queries: Vectors,
        k: int,
        num_fetched: int,
        excluded: Sequence[Rows] | None,
        allowed: Sequence[Mask | None] | None,
        included: Sequence[Rows] | None,
    ) -> tuple[Rows, Vectors, Mask]:
        """Results, and which of them are complete: k items, and (for flat) no unseen item that could belong to them."""
        rough, ids = self.faiss.search(self._reduced(queries), num_fetched)
        fetched = ids.astype(np.int64) + 1
        alive = self._alive(fetched, excluded, allowed)
        kept = min(num_fetched, k + SLACK)
        order = np.argsort(~alive, axis=1, kind="stable")[:, :kept]
        candidates = np.where(
            np.take_along_axis(alive, order, axis=1), np.take_along_axis(fetched, order, axis=1), PAD_ROW
        )
        if included is not None:
            candidates = with_included(candidates, included, excluded, allowed)
        rows, scores = best(self.exact.vectors, queries, candidates.ravel(), ends_of(candidates), k)
        complete = rows[:, -1] != PAD_ROW
        if self.kind is IndexKind.FLAT:
            # FAISS's best score among items that were not scored exactly: this item could tie with the last result.
            last_seen = rough[:, -1] if num_fetched < self.num_items else np.full(len(rough), -np.inf, dtype=np.float32)
            cut = np.take_along_axis(rough, order[:, -1:], axis=1)[:, 0]
            unscored = np.where(alive.sum(axis=1) > kept, cut, last_seen)
            complete &= scores[:, -1] - rounding_margin(queries, self._longest) > unscored
        return rows, scores, complete

    def _alive(self, fetched: Rows, excluded: Sequence[Rows] | None, allowed: Sequence[Mask | None] | None) -> Mask:
        """True for fetched rows that may be shown. FAISS pads with id -1, which is row 0 here."""
        alive = fetched > 0
        if excluded is not None:
            hidden = np.zeros(self.num_items + 1, dtype=np.bool_)
            for query, rows in enumerate(excluded):
                hidden[rows] = True
                alive[query] &= ~hidden[fetched[query]]
                hidden[rows] = False
        if allowed is not None:
            for query, mask in enumerate(allowed):
                if mask is not None:
                    alive[query] &= mask[fetched[query]]
        return alive

    def _build(self) -> Any:
        items = self._extended()
        dimension = items.shape[1]
        if self.kind is IndexKind.FLAT:
            built: Any = faiss.IndexFlatIP(dimension)
        elif self.kind is IndexKind.HNSW:
            built = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS)
            built.hnsw.efConstruction = _HNSW_BUILD
        else:
            num_lists = max(1, min(round(4 * len(items) ** 0.5), len(items) // _IVF_MIN_PER_LIST))
            built = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, num_lists, faiss.METRIC_INNER_PRODUCT)
            built.cp.seed = _SEED
            built.cp.min_points_per_centroid = 1
            if len(items):
                built.train(items)
        if len(items):
            built.add(items)
        return built

    def _extended(self) -> Vectors:
        """The items as FAISS stores them. For HNSW, one more coordinate makes all lengths equal, so that the nearest
        item is the one with the largest inner product. A graph built with the inner product itself found 2 of 10 items
        where lengths differ.
        """
        items = self.exact.vectors[1:]
        if self.kind is not IndexKind.HNSW:
            return items
        squares = np.einsum("vd,vd->v", items, items, dtype=np.float64)
        missing = np.sqrt(np.maximum(squares.max(initial=0.0) - squares, 0.0))
        return np.concatenate([items, missing[:, None].astype(np.float32)], axis=1)

    def _reduced(self, queries: Vectors) -> Vectors:
        if self.kind is not IndexKind.HNSW:
            return queries
        return np.concatenate([queries, np.zeros((len(queries), 1), dtype=np.float32)], axis=1)

    def _check_built(self) -> None:
        dimension = self.dimension + (self.kind is IndexKind.HNSW)
        metric = faiss.METRIC_L2 if self.kind is IndexKind.HNSW else faiss.METRIC_INNER_PRODUCT
        found = (self.faiss.ntotal, self.faiss.d, self.faiss.metric_type)
        if found != (self.num_items, dimension, metric):
            raise ValueError(
                f"a {self.kind} index over these vectors has {self.num_items} items of {dimension} dimensions, "
                f"this one has {found[0]} of {found[1]}, or another metric"
            )

    def _configure(self) -> None:
        if self.kind is IndexKind.HNSW:
            self.faiss.hnsw.efSearch = _HNSW_SEARCH
        elif self.kind is IndexKind.IVF:
            self.faiss.nprobe = min(self.faiss.nlist, max(_IVF_MIN_PROBES, round(_IVF_PROBES_RATIO * self.faiss.nlist)))
