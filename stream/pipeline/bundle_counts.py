"""A table of counts of plays as one bundle's items have it: columns and popularity by row.

Immutable, and made anew for each table, on a thread beside the hot path. It goes with a slice, so one micro-batch is answered
from one table; the one before it lives as long as a slice has it.

With successors, what popularity adds to their part of the score is one more column, whose weight is 1.

Shapes: V rows of the bundle, S rows of items that are new to it, C columns, H rows with the highest columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from index.counted import CountedIndex, highest_rows
from intentrec_core.features.count_columns import DAY_COLUMN
from intentrec_core.successors import popular_shares
from stream.pipeline.popular import PopularTable

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from stream.bundles.serving import Serving
    from stream.pipeline.shown_items import ShownItems


@dataclass(frozen=True, slots=True, eq=False)
class BundleCounts:
    """``popular``: of the bundle's own V rows. ``shares``: as :func:`~intentrec_core.successors.popular_shares` gives them, None
    without counts or successors; ``day``: plays of all V rows, decayed by a day.

    Shapes: columns f32[V, C], or with shares one more; highest i64[H], both empty for a model without counts; shares f32[V].
    """

    serving: Serving
    table: ItemCounts
    columns: NDArray[np.float32]
    highest: NDArray[np.int64]
    popular: PopularTable
    shares: NDArray[np.float32] | None = None
    day: float = 0.0

    @classmethod
    def of(cls, serving: Serving, table: ItemCounts) -> BundleCounts:
        """Looks a bundle's items up in a table. Safe from any thread. Cost: some 0.5 µs an item."""
        hashes = serving.vocabulary.hashes
        columns = table.columns_of(hashes) if serving.counts is not None else table.columns[:0]
        columns[:1] = 0.0
        week = table.week_of(hashes)
        week[0] = 0.0
        shares, day = None, 0.0
        if serving.counts is not None and serving.successors is not None:
            day = float(np.expm1(columns[:, DAY_COLUMN]).sum())
            shares = popular_shares(columns[:, DAY_COLUMN], day)
        highest = highest_rows(columns)
        return cls(serving, table, _with_popularity(serving, columns, shares), highest, PopularTable(week), shares, day)

    def index(self, items: ShownItems) -> CountedIndex:
        """An index of the items that are shown, with their counts as further columns.

        Cost: copies of the highest rows' vectors; with items that are new to the bundle, a copy of the columns.
        """
        columns, highest = self.columns, self.highest
        if items.added:
            columns = np.zeros((items.index.num_items + 1, self.columns.shape[1]), dtype=np.float32)
            columns[: len(self.columns)] = self.columns
            added, rows = _added(items)
            of_added = self.table.columns_of(added)
            shares = None if self.shares is None else popular_shares(of_added[:, DAY_COLUMN], self.day)
            columns[rows] = _with_popularity(self.serving, of_added, shares)
            highest = np.concatenate([highest, highest_rows(columns[:, : of_added.shape[1]], rows)])
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


def _with_popularity(
    serving: Serving, columns: NDArray[np.float32], shares: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Columns of items, and behind them what popularity adds beside successors, where it is a part of the score."""
    if shares is None or serving.successors is None:
        return columns
    return np.concatenate([columns, serving.successors.of_popular(shares)[:, None]], axis=1)


def _added(items: ShownItems) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    num = len(items.added)
    hashes = np.fromiter(items.added.keys(), dtype=np.uint64, count=num)
    rows = np.fromiter(items.added.values(), dtype=np.int64, count=num)
    order = np.argsort(rows)
    return hashes[order], rows[order]
