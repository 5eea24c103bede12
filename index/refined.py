"""Search in two steps: FAISS says which items may be the best, and their scores are then computed exactly.

    queries ─▶ rough search, F items ─▶ filters ─▶ C candidates ─▶ exact scores ─▶ best k
                   ▲          └─ too few candidates are left: four times as many, once
                   └─ restrictive filter, still too few, or a tie cut off: exact search over all rows

The result has k items whenever k may be shown, with the scores and the order of :class:`index.exact.ExactIndex`. How many items
are fetched for a query depends on that query alone, so its result does not depend on the other queries of its batch.

Shapes: B queries, F fetched, C candidates, V rows.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from index.base import PAD_ROW, Mask, Rows, Vectors, check_search, longest_vector, picked, rounding_margin
from index.candidates import MIN_ALLOWED_RATIO, Candidates, allowed_ratios, best, find_candidates
from index.exact import ExactIndex

#: Fetched in addition to the candidates, so that a few hidden items do not cause a second fetch.
SLACK = 16
#: How many times as many items the second fetch takes.
_SECOND_FETCH = 4
#: With this share of the fetched items allowed, enough candidates are left.
_SPARED_RATIO = 0.8
#: Up to this many items, the exact search costs less than a second fetch.
_EXACT_UP_TO_ITEMS = 20_000


@dataclass(frozen=True, slots=True)
class _Search:
    """The arguments of a search."""

    queries: Vectors
    k: int
    excluded: Sequence[Rows] | None
    allowed: Sequence[Mask | None] | None
    included: Sequence[Rows] | None

    def of(self, members: NDArray[np.intp]) -> _Search:
        """The same search for some of the queries, in their order."""
        if len(members) == len(self.queries):
            return self
        return _Search(
            self.queries[members],
            self.k,
            picked(self.excluded, members),
            picked(self.allowed, members),
            picked(self.included, members),
        )


class RefinedIndex(ABC):
    """What all indexes with FAISS in them share.

    Cost: the rough search, and O(C · D) per query; the exact search for a query that falls back to it. On the calling thread.
    """

    def __init__(self, vectors: Vectors) -> None:
        """Raises: ValueError for unsuitable vectors."""
        self.exact = ExactIndex(vectors)
        self._longest = longest_vector(self.exact.vectors)
        self._scratch = threading.local()

    @property
    def num_items(self) -> int:
        """Number of items held, not counting row 0."""
        return self.exact.num_items

    @property
    def dimension(self) -> int:
        """D: the number of dimensions."""
        return self.exact.dimension

    @property
    @abstractmethod
    def num_searched(self) -> int:
        """Number of items that the rough search can find; only the exact search finds the others."""

    @abstractmethod
    def num_candidates(self, k: int) -> int:
        """C: the number of items to score exactly; 0 if k is more than the index is made for."""

    @abstractmethod
    def rough(self, queries: Vectors, num_fetched: int) -> tuple[Vectors, Rows]:
        """About the best items of each query, best first, and their rough scores; row 0 where there is none.

        Shapes: f32[B, D] -> f32[B, F], i64[B, F].
        """

    def num_needed(self, k: int) -> int:
        """How many of the candidates must be left by the filters, or the search fetches more."""
        return self.num_candidates(k)

    @property
    def is_exact(self) -> bool:
        """Whether the result is proven to be the exact one: rough scores are inner products up to rounding."""
        return False

    def vectors_of(self, rows: Rows) -> Vectors:
        """See :meth:`index.base.ItemIndex.vectors_of`."""
        return self.exact.vectors_of(rows)

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
        asked = _Search(check_search(self, queries, k, excluded, allowed, included), k, excluded, allowed, included)
        # Not filled: every query is in one of the groups, or in the rest.
        rows, scores = np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
        groups, rest = self._groups(asked)
        for num_fetched, members in groups:
            sizes = (num_fetched, _SECOND_FETCH * num_fetched)
            for size in sizes if num_fetched < self.num_searched and self._fetches_twice else sizes[:1]:
                found = self._refined(asked.of(members), min(size, self.num_searched))
                if len(members) == len(queries) and found[2].all():
                    return found[:2]
                rows[members], scores[members], complete = found
                members = members[~complete]
                if not len(members):
                    break
            rest = np.concatenate([rest, members])
        if len(rest):
            rest = np.sort(rest)
            part = asked.of(rest)
            rows[rest], scores[rest] = self.exact.search(part.queries, k, excluded=part.excluded, allowed=part.allowed)
        return rows, scores

    @property
    def _fetches_twice(self) -> bool:
        """Whether a second fetch costs less than the exact search."""
        return self.num_items > _EXACT_UP_TO_ITEMS

    def _groups(self, asked: _Search) -> tuple[list[tuple[int, NDArray[np.intp]]], NDArray[np.intp]]:
        """Queries by the number of items to fetch for them, and those for the exact search."""
        all_queries, no_queries = np.arange(len(asked.queries)), np.zeros(0, dtype=np.intp)
        num_candidates = self.num_candidates(asked.k)
        if not num_candidates or not self.num_searched:
            return [], all_queries
        first = num_candidates + SLACK
        if asked.allowed is None or not any(mask is not None for mask in asked.allowed):
            return [(first, all_queries)], no_queries
        ratios = allowed_ratios(self.num_items, len(all_queries), asked.allowed)
        # A filter that allows a half of the items needs twice as many; in steps of two, so that batches stay together. There are
        # candidates to spare: a filter that hides up to a fifth, such as a few withdrawn items, needs no more.
        shares = np.clip(ratios / _SPARED_RATIO, MIN_ALLOWED_RATIO, 1.0)
        factors = np.exp2(np.ceil(-np.log2(shares)))
        factors[ratios < MIN_ALLOWED_RATIO] = 0
        groups = [(int(first * factor), np.flatnonzero(factors == factor)) for factor in (1, 2, 4)]
        return [group for group in groups if len(group[1])], np.flatnonzero(factors == 0)

    def _refined(self, asked: _Search, num_fetched: int) -> tuple[Rows, Vectors, Mask]:
        """The best k of the candidates among the fetched items, and for which queries they are the result."""
        with one_faiss_thread():
            rough, fetched = self.rough(asked.queries, num_fetched)
        found = find_candidates(
            fetched, self.num_candidates(asked.k), self._marks(), asked.excluded, asked.allowed, asked.included
        )
        rows, scores = best(self.exact.vectors, asked.queries, found.rows, found.ends, asked.k)
        has_all = (fetched[:, -1] == 0) | (num_fetched >= self.num_searched)
        has_enough = has_all | (found.num_fetched >= self.num_needed(asked.k))
        complete = has_enough & (rows[:, -1] != PAD_ROW)
        if self.is_exact:
            complete &= scores[:, -1] - rounding_margin(asked.queries, self._longest) > self._unscored(rough, found)
        return rows, scores, complete

    def _unscored(self, rough: Vectors, found: Candidates) -> Vectors:
        """The best rough score that an item outside the candidates can have. Shape: f32[B]."""
        unscored = np.take_along_axis(rough, found.last[:, None], axis=1)[:, 0]
        all_scored = (found.last == rough.shape[1] - 1) & (rough.shape[1] >= self.num_items)
        return np.where(all_scored, np.float32(-np.inf), unscored)

    def _marks(self) -> NDArray[np.bool_]:
        """One flag per row, all false: scratch memory of this thread."""
        if not hasattr(self._scratch, "marks"):
            self._scratch.marks = np.zeros(self.num_items + 1, dtype=np.bool_)
        marks: NDArray[np.bool_] = self._scratch.marks
        return marks


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """FAISS works on the calling thread: starting others costs more than a micro-batch, and takes cores from the encoder."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
