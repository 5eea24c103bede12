"""A table of counts of plays as one bundle's items have it: columns and popularity by row.

Immutable, and made anew for each table, on a thread beside the hot path. It goes with a slice, so one micro-batch is answered
from one table; the one before it lives as long as a slice has it.

Shapes: V rows of the bundle, S rows of items that are new to it, C columns, H rows with the highest columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.counted import CountedIndex, highest_rows
from stream.pipeline.popular import PopularTable

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from stream.bundles.serving import Serving
    from stream.pipeline.shown_items import ShownItems


@dataclass(frozen=True, slots=True, eq=False)
class BundleCounts:
    """Shapes: columns f32[V, C]; highest i64[H], both empty for a model without counts; popular: of the bundle's own V rows."""

    serving: Serving
    table: ItemCounts
    columns: NDArray[np.float32]
    highest: NDArray[np.int64]
    popular: PopularTable

    @classmethod
    def of(cls, serving: Serving, table: ItemCounts) -> BundleCounts:
        """Looks a bundle's items up in a table. Safe from any thread. Cost: some 0.5 µs an item."""
        hashes = serving.vocabulary.hashes
        columns = table.columns_of(hashes) if serving.counts is not None else table.columns[:0]
        columns[:1] = 0.0
        week = table.week_of(hashes)
        week[0] = 0.0
        return cls(serving, table, columns, highest_rows(columns), PopularTable(week))

    def index(self, items: ShownItems) -> CountedIndex:
        """An index of the items that are shown, with their counts as further columns.

        Cost: copies of the highest rows' vectors; with items that are new to the bundle, a copy of the columns.
        """
        columns, highest = self.columns, self.highest
        if items.added:
            columns = np.zeros((items.index.num_items + 1, self.columns.shape[1]), dtype=np.float32)
            columns[: len(self.columns)] = self.columns
            added, rows = _added(items)
            columns[rows] = self.table.columns_of(added)
            highest = np.concatenate([highest, highest_rows(columns, rows)])
        elif items.index.num_items + 1 > len(columns):  # rows of items that were added and withdrawn again
            more = items.index.num_items + 1 - len(columns)
            columns = np.concatenate([columns, np.zeros((more, columns.shape[1]), dtype=np.float32)])
        return CountedIndex(items.index, columns, highest)

    def week(self, items: ShownItems) -> NDArray[np.float64]:
        """Plays, decayed by a week, of every item that is shown. Shape: f64[V + S]."""
        week = np.zeros(len(items.titles))
        week[: len(self.popular.week)] = self.popular.week
        if items.added:
            added, rows = _added(items)
            week[rows] = self.table.week_of(added)
        return week

    def appeal(self, items: ShownItems) -> NDArray[np.float32]:
        """log(1 + plays), with plays decayed by a week, of every item that is shown. Shape: f32[V + S]."""
        appeal: NDArray[np.float32] = np.log1p(self.week(items)).astype(np.float32)
        return appeal


def _added(items: ShownItems) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    num = len(items.added)
    hashes = np.fromiter(items.added.keys(), dtype=np.uint64, count=num)
    rows = np.fromiter(items.added.values(), dtype=np.int64, count=num)
    order = np.argsort(rows)
    return hashes[order], rows[order]
