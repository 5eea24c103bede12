"""What is popular now, kept play by play: the decayed counts of :mod:`intentrec_core.features.play_counts` as plays come.

    plays ─ fold ─▶ CountFold: sums of each item as of its newest play ─ packed, in blocks ─▶ ItemCounts: columns as of now

A sum only decays between two plays of its item, so an item without new plays is not touched, and its block stays as it is.
Plays may come in any order of event time. Another order of the same plays gives the same sums but for rounding, within 1e-9 of
each.

Shapes: N items, P plays, C columns: one per decay, and the age (:mod:`intentrec_core.features.count_columns`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.features.buckets import DAY_S
from intentrec_core.features.count_columns import DECAYS_S, NUM_COLUMNS
from intentrec_core.kernels.decayed_counts import fold_events, sums_at

#: Items in one block: 56 kB, far below the size of a record that any broker takes.
BLOCK_ITEMS = 1024
#: One item: the hash of its id, the times of its first and its newest play in milliseconds since 1970, and its sums as of the
#: newest.
ENTRY = np.dtype([("item_hash", "<u8"), ("first_ms", "<i8"), ("newest_ms", "<i8"), ("sums", "<f8", (len(DECAYS_S),))])
#: Which of the sums is that of a week.
WEEK = 2
_DECAYS_S = np.array(DECAYS_S)


class CountFold:
    """Sums by item, in the order in which items were first seen. Not thread safe.

    ``newest_ms``: the newest event time folded, in milliseconds since 1970; None before the first play.
    """

    def __init__(self) -> None:
        self.newest_ms: int | None = None
        self._row_of: dict[int, int] = {}
        self._entries = np.zeros(BLOCK_ITEMS, dtype=ENTRY)
        self._changed: set[int] = set()

    @classmethod
    def of(cls, blocks: Iterable[bytes], newest_ms: int | None) -> CountFold:
        """Goes on from packed blocks, in their order. Raises: ValueError where a block is no whole number of entries."""
        fold = cls()
        entries = [np.frombuffer(block, dtype=ENTRY) for block in blocks]
        if entries:
            fold._entries = np.concatenate(entries)
            fold._row_of = {item: row for row, item in enumerate(fold._entries["item_hash"].tolist())}
        fold.newest_ms = newest_ms
        return fold

    def __len__(self) -> int:
        """N."""
        return len(self._row_of)

    @property
    def num_blocks(self) -> int:
        """Number of blocks that hold all items."""
        return -(-len(self) // BLOCK_ITEMS)

    def add(self, item_hashes: Sequence[int], ts_ms: Sequence[int]) -> None:
        """Counts plays. Cost: some 0.3 µs each."""
        if not item_hashes:
            return
        row_of, first_new = self._row_of, len(self._row_of)
        rows, at_ms = np.empty(len(item_hashes), dtype=np.int64), np.array(ts_ms, dtype=np.int64)
        began: list[int] = []
        for place, item in enumerate(item_hashes):
            row = row_of.setdefault(item, len(row_of))
            rows[place] = row
            if row == first_new + len(began):
                began.append(place)
        self._reserve(len(row_of))
        new = self._entries[first_new : len(row_of)]
        new["item_hash"] = [item_hashes[place] for place in began]
        new["first_ms"] = new["newest_ms"] = at_ms[began]
        entries = self._entries
        fold_events(rows, at_ms, _DECAYS_S, entries["first_ms"], entries["newest_ms"], entries["sums"])
        newest = int(at_ms.max())
        self.newest_ms = newest if self.newest_ms is None else max(newest, self.newest_ms)
        self._changed.update((rows // BLOCK_ITEMS).tolist())

    def take_changed(self) -> dict[int, bytes]:
        """The blocks that have changed since the last call, by number, packed."""
        changed, self._changed = sorted(self._changed), set()
        return {number: self.block(number) for number in changed}

    def block(self, number: int) -> bytes:
        """One block, packed: its entries one after another."""
        return self._entries[number * BLOCK_ITEMS : min((number + 1) * BLOCK_ITEMS, len(self))].tobytes()

    def _reserve(self, num_items: int) -> None:
        if num_items > len(self._entries):
            grown = np.zeros(max(num_items, 2 * len(self._entries)), dtype=ENTRY)
            grown[: len(self._entries)] = self._entries
            self._entries = grown


@dataclass(frozen=True, slots=True, eq=False)
class ItemCounts:
    """A table of counts as of one event time: what the columns of its items are.

    ``sequence``: rises with every table. ``at_ms``: the newest event time folded, which the columns are of.
    ``written_s``: when it was written, in seconds since 1970.
    Shapes: hashes u64[N], ascending; columns f32[N, C] as of :meth:`PlayCounts.columns`; week f64[N], the sums of a week.
    """

    sequence: int
    at_ms: int
    hashes: NDArray[np.uint64]
    columns: NDArray[np.float32]
    week: NDArray[np.float64]
    written_s: float

    @classmethod
    def of(cls, blocks: Sequence[bytes], sequence: int, at_ms: int, written_s: float) -> ItemCounts:
        """The table that packed blocks hold.

        Raises: ValueError where a block is no whole number of entries, or a number is none that plays give.
        Cost: some 0.5 µs an item, without the GIL for the most part.
        """
        entries = np.frombuffer(b"".join(blocks), dtype=ENTRY)
        entries = entries[np.argsort(entries["item_hash"], kind="stable")]
        hashes = entries["item_hash"].copy()
        sums = np.empty((len(entries), len(DECAYS_S)))
        sums_at(entries["newest_ms"].copy(), entries["sums"].copy(), at_ms, _DECAYS_S, sums)
        age_days = (at_ms - entries["first_ms"]) / (1000.0 * DAY_S)
        columns = np.empty((len(entries), NUM_COLUMNS), dtype=np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns[:, :-1], columns[:, -1] = np.log1p(sums), np.log1p(age_days)
        if not np.isfinite(columns).all() or (columns < 0).any() or (hashes[1:] == hashes[:-1]).any():
            raise ValueError("an item is there twice, or a sum or a time is none that plays give")
        return cls(sequence, at_ms, hashes, columns, sums[:, WEEK].copy(), written_s)

    def columns_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
        """The columns of items, all 0 for one that was not played. Shapes: u64[R] -> f32[R, C]."""
        found = np.zeros((len(hashes), NUM_COLUMNS), dtype=np.float32)
        place = self._places(hashes)
        found[place >= 0] = self.columns[place[place >= 0]]
        return found

    def week_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Plays of items, decayed by a week, 0 for one that was not played. Shapes: u64[R] -> f64[R]."""
        found = np.zeros(len(hashes))
        place = self._places(hashes)
        found[place >= 0] = self.week[place[place >= 0]]
        return found

    def _places(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where the items with these hashes are in the table, -1 for items that were not played. Shapes: u64[R] -> i64[R]."""
        if not len(self.hashes):
            return np.full(len(hashes), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, place, -1)
