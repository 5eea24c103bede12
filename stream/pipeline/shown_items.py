"""Which items one bundle shows, under which titles: its own, or those that the live catalogue has now.

    bundle's rows 0 to V - 1 ─┬─ in the catalogue: its title and filter data there
                              └─ not in it: on no list
    items new to the bundle ─┬── rows from V on, with the vectors that the next bundle would begin with
                             └── beyond so many rows, the highest hashes of ids: on no list, left out

Immutable: a change makes another object, and shares what stays the same. A micro-batch is answered with one of them, so every
message of it knows the same records of the catalogue. The model's inputs stay those of the bundle: an item that is new to it is
row 0 to the encoder, and what is known of old items is learnt by the next bundle.

A row of the bundle means one item for ever. A row from V on means another one once its item is withdrawn or left out: with it
``added`` becomes another object, and what was derived from it before must be derived anew. Which items are left out follows from
the catalogue alone, so it is the same on every worker, before and after a restart; which rows the others have does not.

Shapes: V rows of the bundle, S added rows, R changed items, L labels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.conditioning import augment
from index.extended import ExtendedIndex
from intentrec_core.bundle.contents import new_item_vectors
from intentrec_core.features.catalogue import Catalogue, Item, shown_title
from intentrec_core.features.release_times import release_keys, without_bad_releases
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from stream.bundles.serving import filters_of

if TYPE_CHECKING:
    from index.base import ItemIndex, Vectors
    from index.filters import FilterSet
    from stream.bundles.serving import Serving
    from stream.pipeline.live_catalogue import CatalogueState, LiveCatalogue

#: Added rows are scored one by one for every play: this many cost 30 to 60 µs. The next bundle has them in its index.
MAX_ADDED = 10_000


@dataclass(frozen=True, slots=True)
class ShownItems:
    """What retrieval and messages need to know of the items.

    ``shown`` bool[V + S]: whether an item is in the catalogue. ``labels`` f32[V + S, L] as in
    :class:`~stream.bundles.serving.Serving`. ``new``: the items of the catalogue that are new to the bundle, by the hash of their
    ids; ``added``: the rows of those that have one; ``added_vectors`` f32[S, D]: what they are found by. ``catalogue_offset``: of
    the newest record of the items topic that is taken into account; None where there is none, or the topic is not followed.
    ``version``: that of the catalogue.
    """

    serving: Serving
    filters: FilterSet
    index: ItemIndex
    labels: Sequence[NDArray[np.float32]]
    item_ids: list[str]
    titles: list[str]
    shown: NDArray[np.bool_]
    added: Mapping[int, int]
    added_vectors: Vectors
    new: Mapping[int, Item]
    catalogue_offset: int | None = None
    version: int = 0

    @classmethod
    def of_bundle(cls, serving: Serving) -> ShownItems:
        """The bundle's own items, as it was built."""
        return cls(
            serving=serving,
            filters=serving.filters,
            index=serving.index,
            labels=serving.labels,
            item_ids=serving.vocabulary.item_ids,
            titles=serving.items.titles,
            shown=np.ones(len(serving.vocabulary), dtype=np.bool_),
            added={},
            added_vectors=np.zeros((0, serving.index.dimension), dtype=np.float32),
            new={},
        )

    @classmethod
    def of_catalogue(cls, serving: Serving, catalogue: LiveCatalogue) -> ShownItems:
        """The items of the catalogue, and no others. Safe from any thread.

        Cost: a pass over all items in Python, about 2 µs each.
        """
        own, num_rows = cls.of_bundle(serving), len(serving.vocabulary)
        none = np.zeros(num_rows, dtype=np.bool_)
        hidden = own.filters.replaced(np.arange(1, num_rows), own.filters, none[1:], num_rows)
        return replace(own, filters=hidden, shown=none).changed(catalogue.everything())

    @property
    def num_hidden(self) -> int:
        """Items of the bundle that are not in the catalogue."""
        return int(np.count_nonzero(~self.shown[1 : len(self.serving.vocabulary)]))

    @property
    def num_left_out(self) -> int:
        """Items of the catalogue that are on no list: too many are new to the bundle."""
        return len(self.new) - len(self.added)

    def changed(self, state: CatalogueState) -> ShownItems:
        """These items after changes of the catalogue.

        Cost: about 2 µs for each item in Python, and copies of the columns that change; with items that are new to the bundle,
        copies of their table.
        """
        hashes = np.array(list(state.items), dtype=np.uint64)
        rows = self.serving.vocabulary.rows(hashes).tolist()
        known, new = dict[int, Item | None](), dict[int, Item | None]()
        for item_hash, row, item in zip(state.items, rows, state.items.values(), strict=True):
            if row:
                known[row] = item
            else:
                new[item_hash] = item
        offset = state.offset if state.offset >= 0 else None
        current = replace(self, catalogue_offset=offset, version=state.version)
        return current._with_new(new, known) if new else current._with(known)

    def _with_new(self, changes: Mapping[int, Item | None], known: Mapping[int, Item | None]) -> ShownItems:
        """These items with others: ``changes`` of those that are new to the bundle, by hash; ``known``: of the bundle, by row."""
        new, changed = dict(self.new), dict(known)
        for item_hash, item in changes.items():
            if item is None:
                new.pop(item_hash, None)
            else:
                new[item_hash] = item
        with_row = _with_row(new)
        added = {item_hash: row for item_hash, row in self.added.items() if item_hash in with_row}
        changed.update((row, None) for item_hash, row in self.added.items() if item_hash not in with_row)
        # The lowest rows first, so that there are never more of them than items were shown at one time.
        first, taken, given = len(self.serving.vocabulary), set(added.values()), sorted(with_row - added.keys())
        added.update(zip(given, (row for row in range(first, first + MAX_ADDED) if row not in taken), strict=False))
        changed.update((added[item_hash], new[item_hash]) for item_hash in {*given, *changes} if item_hash in added)
        return replace(self, added=self.added if added == self.added else added, new=new)._with(changed)

    def rows(self, hashes: NDArray[np.uint64], of_bundle: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of item hashes, added ones included, 0 where unknown; ``of_bundle``: their rows in the bundle's vocabulary.

        Shapes: u64[N], i64[N] -> i64[N].
        """
        if not self.added:
            return of_bundle
        rows = of_bundle.copy()
        for place in np.flatnonzero(of_bundle == 0).tolist():
            rows[place] = self.added.get(int(hashes[place]), 0)
        return rows

    def _with(self, changed: Mapping[int, Item | None]) -> ShownItems:
        """These items with others in some rows, None for an item that is in no list."""
        if not changed:
            return self
        first, num_rows = len(self.serving.vocabulary), max(len(self.titles), 1 + max(changed))
        rows = np.array(list(changed), dtype=np.int64)
        new = np.array([item is not None for item in changed.values()], dtype=np.bool_)
        of_added = rows >= first
        missing = [""] * (num_rows - len(self.titles))
        titles, item_ids = self.titles + missing, self.item_ids + missing if of_added.any() else self.item_ids
        for row, item in changed.items():
            if item is not None:
                titles[row] = shown_title(item.title)
                if row >= first:
                    item_ids[row] = item.item_id
        # A withdrawn item is in the table for its row alone: no data of it counts.
        items = [item or Item(item_ids[row], titles[row]) for row, item in changed.items()]
        domain = self.serving.domain
        catalogue = without_bad_releases(Catalogue(items), release_keys(domain))
        table = ItemTable(domain, Vocabulary([item.item_id for item in items]), catalogue)
        shown = np.concatenate([self.shown, np.zeros(num_rows - len(self.shown), dtype=np.bool_)])
        shown[rows] = new
        filters = self.filters.replaced(rows, filters_of(table), new, num_rows)
        other = replace(self, filters=filters, item_ids=item_ids, titles=titles, shown=shown)
        return other._with_vectors(rows[of_added], table, 1 + np.flatnonzero(of_added)) if of_added.any() else other

    def _with_vectors(self, rows: NDArray[np.int64], table: ItemTable, of_table: NDArray[np.int64]) -> ShownItems:
        """These items with the vectors and labels of added ones, which are in the rows ``of_table`` of a table."""
        serving, first = self.serving, len(self.serving.vocabulary)
        vectors = new_item_vectors(serving.engine.weights, table, _as_of(serving))
        own_labels = list(vectors.labels.values())
        searched = _grown(self.added_vectors, len(self.titles) - first)
        searched[rows - first] = augment(vectors.weights, vectors.bias, own_labels)[of_table]
        labels = [_grown(known, len(self.titles)) for known in self.labels]
        for known, own in zip(labels, own_labels, strict=True):
            known[rows] = own[of_table]
        return replace(self, added_vectors=searched, labels=labels, index=ExtendedIndex(serving.index, searched))


def _with_row(new: Mapping[int, Item]) -> Set[int]:
    """Of the items that are new to a bundle those that have a row: the ones with the lowest hashes of their ids."""
    if len(new) <= MAX_ADDED:
        return new.keys()
    hashes = np.fromiter(new, dtype=np.uint64, count=len(new))
    return set(np.partition(hashes, MAX_ADDED - 1)[:MAX_ADDED].tolist())


def _as_of(serving: Serving) -> float:
    """The time as of which the bundle's labels are, in seconds since 1970."""
    return serving.counted_at_s if math.isfinite(serving.counted_at_s) else serving.created_s


def _grown(values: NDArray[np.float32], num_rows: int) -> NDArray[np.float32]:
    """A copy with rows of zeros at the end."""
    return np.concatenate([values, np.zeros((num_rows - len(values), values.shape[1]), dtype=np.float32)])
