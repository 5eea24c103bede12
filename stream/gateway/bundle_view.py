"""What the gateway answers from an announced bundle: items, what is popular, what is similar, and scores of a published query.

Immutable: another bundle, a change of the catalogue and a new table of counts each make another view. Items and filter data are
those of the bundle, or of the items topic where that is followed: then an item is shown if and only if the topic has it, and
items that are new to the bundle wait for the next one.

Shapes: V item rows (row 0 is no item), W model width, D' as in :mod:`index.conditioning`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index.conditioning import augment
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.count_columns import NUM_COLUMNS
from intentrec_core.features.release_times import release_keys, without_bad_releases
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.history.history import default_value
from stream.bundles.serving import filters_of
from stream.settings import MAX_RECOMMENDATIONS

if TYPE_CHECKING:
    from index.filters import FilterSet, HidingFilter
    from intentrec_core.bundle.contents import LoadedBundle
    from intentrec_core.domain.spec import Domain
    from intentrec_core.engine.item_counts import ItemCounts
    from intentrec_core.features.vocabulary import Vocabulary

MemberValues = Mapping[str, float | int | None]
"""What a member's plays say for each filter, by ``event_key``: a number, or the 64-bit hash of a text."""


@dataclass(frozen=True, eq=False)
class BundleView:
    """See the module.

    ``available``: items that some member may be shown.

    Shapes: shown, available bool[V]; vectors f32[V, D']; directions f32[V, W], of length 1; appeal f64[V], log(1 + plays).
    """

    version: str
    domain: Domain
    vocabulary: Vocabulary
    catalogue: Catalogue
    titles: Sequence[str]
    texts: Sequence[str]
    filters: FilterSet
    shown: NDArray[np.bool_]
    available: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    directions: NDArray[np.float32]
    popularity: NDArray[np.float32]
    appeal: NDArray[np.float64]
    counts: ItemCounts | None = None

    @classmethod
    def of(cls, loaded: LoadedBundle) -> BundleView:
        """The bundle as it was built. Cost: a copy of its vectors."""
        vectors = loaded.vectors
        lengths = np.linalg.norm(vectors.weights, axis=1, keepdims=True)
        table = loaded.item_table
        shown = np.ones(len(table), dtype=np.bool_)
        shown[0] = False
        return cls(
            version=loaded.version,
            domain=loaded.domain,
            vocabulary=loaded.vocabulary,
            catalogue=loaded.catalogue(),
            titles=table.titles,
            texts=_texts(table.titles, loaded.vocabulary),
            filters=(filters := filters_of(table)),
            shown=shown,
            available=filters.shown_to_some() & shown,
            vectors=augment(vectors.weights, vectors.bias, list(vectors.labels.values())),
            directions=vectors.weights / np.maximum(lengths, np.float32(1e-12)),
            popularity=loaded.popularity,
            appeal=np.log1p(loaded.popularity.astype(np.float64)),
        )

    def with_catalogue(self, items: Iterable[Item]) -> BundleView:
        """With the items of the items topic, and no others. Cost: a pass over all items in Python."""
        catalogue = without_bad_releases(Catalogue(items), release_keys(self.domain))
        table = ItemTable(self.domain, self.vocabulary, catalogue)
        return replace(
            self,
            catalogue=catalogue,
            titles=table.titles,
            texts=_texts(table.titles, self.vocabulary),
            filters=(filters := filters_of(table)),
            shown=table.is_described,
            available=filters.shown_to_some() & table.is_described,
        )

    def with_counts(self, table: ItemCounts) -> BundleView:
        """With what a table of counts says is popular. Cost: 0.1 µs an item."""
        week = table.week_of(self.vocabulary.hashes)
        return replace(self, appeal=np.log1p(week), counts=table)

    def row(self, item_id: str) -> int:
        """The row of an item that is shown; 0 if there is none."""
        row = self.vocabulary.row(item_id)
        return row if self.shown[row] else 0

    def item(self, row: int) -> Item:
        """An item with all of its attributes."""
        item_id = self.vocabulary.item_ids[row]
        found = self.catalogue.get(item_id)
        return Item(item_id, self.titles[row], {} if found is None else found.attributes)

    def popular(self, k: int) -> tuple[list[int], list[float], tuple[HidingFilter, ...]]:
        """Rows and scores of the most popular items for an unknown member; where there is none, the filters that hide every item.

        ``k``: at most MAX_RECOMMENDATIONS. Cost: the first call passes over all items.
        """
        rows, scores, hiding = self._popular
        return rows[:k], scores[:k], hiding

    @cached_property
    def _popular(self) -> tuple[list[int], list[float], tuple[HidingFilter, ...]]:
        values = self.default_values()
        allowed = self.filters.allowed(values) & self.shown
        rows = _best(np.where(allowed, self.appeal, -np.inf), MAX_RECOMMENDATIONS)
        hiding = self.filters.hiding(values) if not rows else ()
        return rows, self.appeal[rows].tolist(), hiding

    def similar(self, row: int, k: int) -> tuple[list[int], list[float]]:
        """Rows and cosines of the items nearest to one, which is left out. Cost: one product of V × W."""
        cosines = self.directions @ self.directions[row]
        cosines[~self.available] = -np.inf
        cosines[row] = -np.inf
        rows = _best(cosines, k)
        return rows, cosines[rows].tolist()

    def search(self, words: Sequence[str], limit: int) -> list[int]:
        """Rows of items whose title or id has all of the words, popular ones first. Cost: a pass over all texts."""
        shown = self.available
        if words:
            lowered = [word.casefold() for word in words]
            found = np.fromiter(
                (all(w in text for w in lowered) for text in self.texts), dtype=np.bool_, count=len(self.texts)
            )
            shown = shown & found
        return _best(np.where(shown, self.appeal, -np.inf), limit)

    def scores(self, rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of items for a published query, which has the weights of the counts' columns after the D' numbers where counts
        are a part of the score. Shapes: i64[R], f32[D' or D' + C] -> f32[R].

        Raises: ValueError for a query of another width.
        """
        width = self.vectors.shape[1]
        weights = query[width:]
        if len(query) < width or len(weights) not in (0, NUM_COLUMNS):
            raise ValueError(f"it has {len(query)} numbers; allowed: {width}, or {width + NUM_COLUMNS} with counts")
        scores: NDArray[np.float32] = self.vectors[rows] @ query[:width]
        if len(weights) and self.counts is not None:
            scores += self.counts.columns_of(self.vocabulary.hashes[rows]) @ weights
        return scores

    def allowed(self, values: MemberValues) -> NDArray[np.bool_]:
        """The items that may be shown to a member with these values. Shape: bool[V]."""
        allowed: NDArray[np.bool_] = self.filters.allowed(values) & self.shown
        return allowed

    def default_values(self) -> dict[str, Any]:
        """What the filters take of a member who has not named a value."""
        return {rule.event_key: default_value(rule) for rule in self.domain.event_filters}


def _best(scores: NDArray[Any], k: int) -> list[int]:
    """The rows with the highest scores, best first; of equal ones the first row. Rows with -inf are none."""
    k = min(k, len(scores))
    if not k:
        return []
    candidates = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else np.arange(len(scores))
    # All that are as good as the last one, so that the order of equal scores does not depend on the partition.
    candidates = np.flatnonzero(scores >= scores[candidates].min())
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return order[np.isfinite(scores[order])].tolist()


def _texts(titles: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    return [f"{title}\n{item_id}".casefold() for title, item_id in zip(titles, vocabulary.item_ids, strict=True)]
