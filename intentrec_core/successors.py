"""What usually follows an item, counted, and what it adds to the scores of the items that follow a member's last plays:

    weight · log(1 + SCALE · (Σ_d DECAY^d · share(play d back → j) + POPULAR · popularity(j)))        d = 0 … LAGS − 1

A pair of items that members often play one after the other is better counted than learnt: an embedding has to find it by gradient
steps, and does not where items have few plays. A share is the count of the transitions from an item that led to j, over that of
all of them and ``SHRINKAGE``. A play also counts as a successor of up to ``SPREAD`` plays before it, with ``DECAY`` for each play
between. Popularity is the item's share of what is played now, decayed by a day: of models with counts of plays, and 0 for others.

The network does not learn with it. The weight is one number, chosen on plays that the network has not learnt
(:mod:`intentrec_core.training.weighing`). Decision 115 has what this gains, and why a weight that is learnt gains less.

Counts go on from table to table, so a trainer adds only the plays that are new. An item keeps its ``KEPT`` highest counts, and
scores are made of the ``MOST`` highest: what begins to follow an item is counted before it is among those. A successor that is
not among the ``KEPT`` after a run is counted from 0 in the next. Beyond ``LARGEST`` transitions of an item its old counts fade.

Shapes: P plays, V item rows (row 0 no item), S counts, N queries, D rows that follow, L = LAGS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from intentrec_core.item_offsets import ItemOffsets
from intentrec_core.kernels import successors

LAGS, DECAY, SPREAD = 5, 0.75, 5
SHRINKAGE, SCALE, POPULAR = 10.0, 100.0, 3.0
MOST, KEPT, LARGEST = 64, 256, 4096.0
#: A count that has faded to less is left out.
LEAST_COUNT = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class SuccessorTable:
    """Of each item, the items that follow it, in ascending rows, how often each does, and how often anything does.

    Shapes: starts i64[V + 1]; rows i32[S] and counts f32[S], of one item after another; totals f32[V].

    Raises: ValueError where the arrays are no table: they are read without a further check.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    counts: NDArray[np.float32]
    totals: NDArray[np.float32]

    def __post_init__(self) -> None:
        parts = (self.starts, self.rows, self.counts, self.totals)
        if [str(part.dtype) for part in parts] != ["int64", "int32", "float32", "float32"]:
            found = ", ".join(str(part.dtype) for part in parts)
            raise ValueError(f"starts, rows, counts and totals are {found}; must be int64, int32, float32, float32")
        if any(part.ndim != 1 for part in parts) or not len(self.totals) or len(self.starts) != len(self.totals) + 1:
            raise ValueError(
                "starts, rows, counts and totals must be lists of numbers: one total for each item, and one more number in starts"
            )
        if (
            self.starts[0]
            or (np.diff(self.starts) < 0).any()
            or not self.starts[-1] == len(self.rows) == len(self.counts)
        ):
            raise ValueError(f"starts must ascend from 0 to {len(self.rows)}, the number of rows and of counts")
        ascends = np.diff(self.rows) > 0
        ascends[self.starts[1:-1][(self.starts[1:-1] > 0) & (self.starts[1:-1] < len(self.rows))] - 1] = True
        if ((self.rows < 1) | (self.rows >= self.num_rows)).any() or not ascends.all():
            raise ValueError(f"rows must be from 1 to {self.num_rows - 1}, and ascend for each item")
        if (
            not (np.isfinite(self.counts) & (self.counts > 0)).all()
            or not (np.isfinite(self.totals) & (self.totals >= 0)).all()
        ):
            raise ValueError("counts must be finite and above 0, totals finite and not below 0")

    @classmethod
    def empty(cls, num_rows: int) -> SuccessorTable:
        """Nothing follows anything."""
        return cls(
            np.zeros(num_rows + 1, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros(num_rows, np.float32),
        )

    @property
    def num_rows(self) -> int:
        """The number of item rows, that of no item included."""
        return len(self.totals)

    def following(self, last_NL: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """What follows the last plays of each query: the decayed sum of its shares.

        ``last_NL`` i64[N, L]: rows of the last plays, newest first, 0 for none.
        Returns the query i64[D], the row i64[D], ascending for each query, and its sum f32[D].
        """
        room = int(np.where(last_NL > 0, np.diff(self.starts)[last_NL], 0).sum())
        query, row, sums = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
        num = successors.following(
            self.starts, self.rows, self.counts, self.totals, last_NL, DECAY, SHRINKAGE, query, row, sums
        )
        return query[:num], row[:num], sums[:num]

    def extended(self, num_rows: int) -> SuccessorTable:
        """The same table with more items, which nothing follows yet."""
        more = num_rows - self.num_rows
        starts = np.concatenate([self.starts, np.full(more, self.starts[-1])])
        return SuccessorTable(
            starts, self.rows, self.counts, np.concatenate([self.totals, np.zeros(more, dtype=np.float32)])
        )

    def most(self, num: int) -> SuccessorTable:
        """The same with at most ``num`` successors of an item, the most frequent; of equal ones those with the lower rows."""
        item = np.repeat(np.arange(self.num_rows), np.diff(self.starts))
        order = np.lexsort((self.rows, -self.counts, item))
        kept = np.sort(order[np.arange(len(order)) - self.starts[item] < num])
        starts = np.searchsorted(item[kept], np.arange(self.num_rows + 1))
        return SuccessorTable(starts, self.rows[kept], self.counts[kept], self.totals)

    def renumbered(self, rows: NDArray[np.int64]) -> SuccessorTable:
        """The same in other rows: the new row r is today's row ``rows[r]``, each at most once, and ``rows[0]`` is 0. An item that
        has no new row is left out where it follows, and still counts in a share. Shape: i64[new V].
        """
        new_of = np.zeros(self.num_rows, dtype=np.int32)
        new_of[rows] = np.arange(len(rows), dtype=np.int32)
        lengths = np.diff(self.starts)[rows]
        item = np.repeat(np.arange(len(rows)), lengths)
        place = np.arange(len(item)) + np.repeat(self.starts[rows] - np.cumsum(lengths) + lengths, lengths)
        to = new_of[self.rows[place]]
        kept = np.lexsort((to, item))
        kept = kept[to[kept] > 0]
        starts = np.searchsorted(item[kept], np.arange(len(rows) + 1))
        return SuccessorTable(starts, to[kept], self.counts[place[kept]], self.totals[rows])

    def counted(
        self,
        row: NDArray[np.int64],
        member: NDArray[np.int64],
        is_new: NDArray[np.bool_] | None = None,
    ) -> SuccessorTable:
        """This table with the transitions of further plays: of one member after another, each member's oldest first.

        ``row`` i64[P]: their items; 0 for an item that has no row: it leads nowhere, and stands between two plays. ``member``
        i64[P]: whose play it is. ``is_new`` bool[P]: transitions to a play that is not are in this table; by default none is.

        Cost: O(P · SPREAD · log P), and some 40 bytes for each of up to P · SPREAD transitions meanwhile.
        """
        rows = row.astype(np.int32)
        before, after, weight = [rows[:0]], [rows[:0]], [np.zeros(0, dtype=np.float32)]
        for gap in range(1, min(SPREAD, len(rows) - 1) + 1):
            is_pair = (member[:-gap] == member[gap:]) & (rows[:-gap] > 0) & (rows[gap:] > 0)
            first = np.flatnonzero(is_pair if is_new is None else is_pair & is_new[gap:])
            before.append(rows[first])
            after.append(rows[first + gap])
            weight.append(np.full(len(first), DECAY ** (gap - 1), dtype=np.float32))
        from_row, to_row, weights = (np.concatenate(parts) for parts in (before, after, weight))
        before.clear()
        after.clear()
        weight.clear()
        order = np.argsort(from_row, kind="stable")
        begin = np.searchsorted(from_row, np.arange(self.num_rows + 1), sorter=order)
        room = len(self.rows) + len(order)
        starts, totals = np.zeros_like(self.starts), np.zeros_like(self.totals)
        found, counts = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.float32)
        successors.counted(
            self.starts,
            self.rows,
            self.counts,
            self.totals,
            begin,
            to_row[order],
            weights[order],
            KEPT,
            LARGEST,
            LEAST_COUNT,
            starts,
            found,
            counts,
            totals,
        )
        return SuccessorTable(starts, found[: starts[-1]].copy(), counts[: starts[-1]].copy(), totals)


@dataclass(frozen=True, eq=False)
class Successors:
    """A table, and how much it counts beside the trained score; with weight 0 it is only kept, for later plays to be added.

    Raises: ValueError when the weight is not a finite number from 0.
    """

    table: SuccessorTable
    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight < np.inf:
            raise ValueError(f"weight {self.weight}; allowed: finite, from 0")

    @cached_property
    def most_frequent(self) -> SuccessorTable:
        """The part of the table that scores are made of."""
        return self.table.most(MOST)

    def of_popular(self, popular: NDArray[np.float32]) -> NDArray[np.float32]:
        """What popularity alone adds to scores, as :func:`popular_shares` gives it. Shape: f32[...] -> f32[...]."""
        return np.float32(self.weight) * _logarithm(popular)

    def offsets(self, last_NL: NDArray[np.int64], popular: NDArray[np.float32] | None = None) -> ItemOffsets:
        """What is added to the scores of what follows the last plays of each query, beyond :meth:`of_popular`: never below 0.

        ``last_NL`` i64[N, L]: rows of the last plays, newest first, 0 for none. ``popular``: as :func:`popular_shares` gives it,
        the same for all queries, f32[V], or of each, f32[N, V]; None where it is no part of the score.
        """
        query, row, share = self.most_frequent.following(last_NL)
        if popular is None:
            return ItemOffsets(query, row, np.float32(self.weight) * _logarithm(share))
        beside = popular[row] if popular.ndim == 1 else popular[query, row]
        return ItemOffsets(query, row, np.float32(self.weight) * (_logarithm(share + beside) - _logarithm(beside)))


def _logarithm(share: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log1p(np.float32(SCALE) * share)


def popular_shares(day: NDArray[np.float32], total: float | None = None) -> NDArray[np.float32]:
    """``POPULAR`` times the share of each item in what is played now. ``day``: plays of each item, decayed by a day, as
    log(1 + plays); ``total``: those of all items, by default of the given ones. Shape: f32[..., V] -> f32[..., V].
    """
    plays = np.expm1(day)
    of_all = plays.sum(axis=-1, keepdims=True) if total is None else np.float32(total)
    return np.float32(POPULAR) * plays / np.maximum(of_all, np.float32(1e-9))
