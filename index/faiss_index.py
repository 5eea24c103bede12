"""FAISS over the item vectors as they are, refined by exact scores (:mod:`index.refined`).

``flat`` returns the same results as :class:`index.exact.ExactIndex`, ties included. ``hnsw`` and ``ivf`` may miss an
item that belongs to the best (see :func:`index.recall.recall_at_k`), but return k items whenever k may be shown.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import faiss
import numpy as np

from index.base import Rows, Vectors
from index.refined import SLACK, RefinedIndex

_HNSW_LINKS = 32
_HNSW_BUILD = 200
_HNSW_SEARCH = 256
_IVF_PROBES_RATIO = 0.1
#: A tenth of the lists of a large catalogue contain most answers. A small catalogue has few lists and needs a larger
#: share.
_IVF_MIN_PROBES = 24
#: FAISS's recommendation for the number of training points per list.
_IVF_MIN_PER_LIST = 39
_COMPARED_AT_ONCE = 16_384
_SEED = 20240811


class IndexKind(StrEnum):
    """How FAISS stores the vectors."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"


class FaissIndex(RefinedIndex):
    """A FAISS index over rows 1 to V - 1, with an exact index over the same vectors as the fallback.

    ``vectors`` has row 0. FAISS numbers its items from 0, so its id is the row minus one.
    Cost: twice the memory of the vectors; search time depends on the kind, plus exact search for the queries that fall
    back.
    """

    def __init__(self, vectors: Vectors, kind: IndexKind | str = IndexKind.FLAT, *, built: Any = None) -> None:
        """Builds the index, or takes an index that was ``built`` over the same vectors.

        Raises: ValueError for unsuitable vectors, or a built index with another size, dimension or metric.
        """
        super().__init__(vectors)
        self.kind = IndexKind(kind)
        self.faiss = self._build() if built is None else built
        self._check_built()
        self._configure()

    @property
    def num_searched(self) -> int:
        """See :meth:`index.refined.RefinedIndex.num_searched`."""
        return self.num_items

    def num_candidates(self, k: int) -> int:
        """See :meth:`index.refined.RefinedIndex.num_candidates`."""
        return k + SLACK

    def rough(self, queries: Vectors, num_fetched: int) -> tuple[Vectors, Rows]:
        """See :meth:`index.refined.RefinedIndex.rough`."""
        scores, ids = self.faiss.search(self._reduced(queries), num_fetched)
        return scores, ids + 1

    @property
    def is_exact(self) -> bool:
        """See :meth:`index.refined.RefinedIndex.is_exact`."""
        return self.kind is IndexKind.FLAT

    def holds_its_vectors(self) -> bool:
        """Whether FAISS's content equals the vectors: each of them, and nothing else.

        Cost: reading both once, some 0.3 s for a million items.
        """
        if self.kind is IndexKind.IVF and self.faiss.invlists.compute_ntotal() != self.num_items:
            return False
        for low in range(0, self.num_items, _COMPARED_AT_ONCE):
            own = self.exact.vectors[1 + low : 1 + low + _COMPARED_AT_ONCE]
            # FAISS leaves the row of an item that is in no inverted list as it was, and so NaN, which equals nothing.
            held = np.full((len(own), self.faiss.d), np.nan, dtype=np.float32)
            self.faiss.reconstruct_n(low, len(own), held)
            # HNSW's further coordinate follows from the others, and may be rounded otherwise on another machine.
            if not np.array_equal(held[:, : self.dimension], own):
                return False
        return True

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
