"""Why an item is on a list: one reason for each, from the parts of its score.

    the member holds it ─────────────────────────────────────▶ continue
    first played within 7 days, by the table of counts ──────▶ new
    the list is the popular fallback ────────────────────────▶ popular
    which part lifts its score most above that of an average item?
        what the intents add, by head ───────────────────────▶ intent, with the label
        its bias, and what counts of plays add ──────────────▶ popular
        what the member's plays add (E) ─────────────────────▶ because_of, with the nearest of these plays

An average item stands for all: a part is large or small only against what other items get.

Shapes: N rows of the batch, k items a list, n items of all lists, W width, D' = W + 1 + labels (:mod:`index.conditioning`), C
columns of counts, H held plays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from index.base import PAD_ROW
from stream.wire.messages import IntentLabel, Reason
from stream.wire.sizes import closed_label

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from stream.bundles.serving import Serving
    from stream.pipeline.answered_rows import AnsweredRows
    from stream.pipeline.shown_items import ShownItems

NEW_DAYS = 7.0
#: Of the member's newest plays, among which the nearest is looked for. Each costs a copy of its item's vector.
NUM_NEAREST = 32
#: Items that stand for all of them, spread over the rows of the bundle.
_NUM_AVERAGED = 4096
_NEW_AGE = math.log1p(NEW_DAYS)
_CONTINUE, _NEW, _POPULAR, _BECAUSE_OF = (Reason(because) for because in ("continue", "new", "popular", "because_of"))


class Reasons:
    """Gives the reasons of one bundle's lists.

    Raises: what the index raises.
    """

    def __init__(self, serving: Serving, k: int) -> None:
        self._serving, self._k = serving, k
        self._width = serving.engine.weights.config.width
        step = max(1, len(serving.vocabulary) // _NUM_AVERAGED)
        self._averaged = np.arange(1, len(serving.vocabulary), step, dtype=np.int64)
        averaged = serving.index.vectors_of(self._averaged)
        self._average_D: NDArray[np.float32] = averaged.sum(axis=0) / np.float32(max(1, len(averaged)))
        self._average_counts: tuple[ItemCounts, NDArray[np.float32]] | None = None
        heads = [serving.domain.heads[m] for m in serving.label_heads] if serving.has_intents else []
        ends = np.cumsum([self._width + 1, *(labels.shape[1] for labels in serving.labels)]).tolist()
        self._slices = [slice(*ends[m : m + 2]) for m in range(len(heads))]
        self._intents = [[_intent(closed_label(head.name, label)) for label in head.label_names] for head in heads]

    def of(self, answered: AnsweredRows) -> list[list[Reason]]:
        """A reason for each of the first k items of each row. Of rows that are not answered, the reasons mean nothing.

        Cost: about 10 µs a row of 10 items.
        """
        ranked, items = answered.ranked, answered.items
        rows_Nk = ranked.rows[:, : self._k]
        reasons = [[_POPULAR] * rows_Nk.shape[1] for _ in range(len(rows_Nk))]
        at_row, at_item = np.nonzero(rows_Nk != PAD_ROW)
        item_n = rows_Nk[at_row, at_item]
        parts, label_n = self._parts(answered, at_row, item_n)
        largest_n = parts.argmax(axis=0) if len(item_n) else item_n
        largest_n[ranked.popular[at_row]] = 1
        new_n = first_played_lately(answered, item_n)
        nearest_n = self._nearest(answered, at_row, item_n, largest_n == 0)
        held = [set(rows.tolist()) for rows in answered.watched]
        named: dict[int, Reason] = {}
        for row, place, item, is_new, largest, label, nearest in zip(
            at_row.tolist(), at_item.tolist(), item_n.tolist(), new_n.tolist(), largest_n.tolist(), label_n.tolist(),
            nearest_n.tolist(), strict=True
        ):  # fmt: skip
            if item in held[row]:
                reason = _CONTINUE
            elif is_new:
                reason = _NEW
            elif largest == 1:
                reason = _POPULAR
            elif largest > 1:
                reason = self._intents[largest - 2][label]
            elif nearest in named:
                reason = named[nearest]
            else:
                reason = named[nearest] = _because_of(nearest, items)
            reasons[row][place] = reason
        return reasons

    def _parts(
        self, answered: AnsweredRows, at_row: NDArray[np.intp], item_n: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The parts of each item's score, less what an average item gets, and of the largest intent the label that adds most.

        Shapes: f32[2 + heads, n]: E, popularity, and each head, -inf where the item has none of its labels; i64[n].
        """
        label_n = np.zeros(len(item_n), dtype=np.int64)
        queries = answered.ranked.queries
        if queries is None:  # no row was searched by a query
            return np.zeros((2, len(item_n)), dtype=np.float32), label_n
        dimension, query = len(self._average_D), queries[at_row]
        vectors = answered.items.index.vectors_of(item_n)
        lifted = (vectors - self._average_D) * query[:, :dimension]
        popular = lifted[:, self._width]
        counts = answered.item_counts
        if counts is not None and query.shape[1] > dimension:
            columns = counts.table.columns_of(_hashes(answered.items, item_n)) - self._average_columns(counts.table)
            popular = popular + (columns * query[:, dimension:]).sum(axis=1)
        parts = [lifted[:, : self._width].sum(axis=1), popular]
        best = np.full(len(item_n), -np.inf, dtype=np.float32)
        for own in self._slices:
            has = vectors[:, own] > 0
            part = np.where(has.any(axis=1), lifted[:, own].sum(axis=1), -np.inf)
            likeliest = np.where(has, vectors[:, own] * query[:, own], -np.inf).argmax(axis=1)
            label_n = np.where(part > best, likeliest, label_n)
            best = np.maximum(best, part)
            parts.append(part)
        return np.stack(parts), label_n

    def _nearest(
        self, answered: AnsweredRows, at_row: NDArray[np.intp], item_n: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The row of the nearest item among each member's newest plays, by the cosine of the items' vectors; 0 where it is not
        wanted, and where no such play is of an item that is shown.
        """
        nearest_n = np.zeros(len(item_n), dtype=np.int64)
        rows = np.unique(at_row[wanted])
        if not len(rows):
            return nearest_n
        held_RH = np.zeros((len(rows), NUM_NEAREST), dtype=np.int64)
        for place, row in enumerate(rows.tolist()):
            newest = answered.watched[row][-NUM_NEAREST:]
            held_RH[place, : len(newest)] = newest
        held_RH[~answered.items.shown[held_RH]] = 0
        index = answered.items.index
        found = np.zeros((*held_RH.shape, self._width), dtype=np.float32)
        found[held_RH > 0] = _unit(index.vectors_of(held_RH[held_RH > 0])[:, : self._width])
        of_row = np.searchsorted(rows, at_row[wanted])
        own = index.vectors_of(item_n[wanted])[:, : self._width]  # the nearest of an item does not depend on its length
        cosines = np.matmul(found[of_row], own[:, :, None])[:, :, 0]
        held = held_RH[of_row]
        cosines[held == 0] = -np.inf
        best = cosines.argmax(axis=1)
        is_found = np.isfinite(cosines.max(axis=1))
        nearest_n[wanted] = np.where(is_found, held[np.arange(len(held)), best], 0)
        return nearest_n

    def _average_columns(self, table: ItemCounts) -> NDArray[np.float32]:
        """The columns of counts of an average item, computed once a table."""
        if self._average_counts is None or self._average_counts[0] is not table:
            columns = table.columns_of(self._serving.vocabulary.hashes[self._averaged])
            self._average_counts = table, columns.mean(axis=0)
        return self._average_counts[1]


def first_played_lately(answered: AnsweredRows, item_n: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each item was first played within 7 days, as of the table of counts."""
    if answered.item_counts is None:
        return np.zeros(len(item_n), dtype=np.bool_)
    columns = answered.item_counts.table.columns_of(_hashes(answered.items, item_n))
    is_new: NDArray[np.bool_] = columns.any(axis=1) & (columns[:, -1] <= _NEW_AGE)
    return is_new


def _hashes(items: ShownItems, item_n: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The hashes of items, added ones included."""
    hashes_V, num_own = items.serving.vocabulary.hashes, len(items.serving.vocabulary)
    hashes = hashes_V[np.where(item_n < num_own, item_n, 0)]
    if items.added and (item_n >= num_own).any():
        by_row = {row: item_hash for item_hash, row in items.added.items()}
        for place in np.flatnonzero(item_n >= num_own).tolist():
            hashes[place] = by_row[int(item_n[place])]
    return hashes


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("nw,nw->n", vectors, vectors))
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))[:, None]
    return unit


def _intent(label: IntentLabel | UnsetType) -> Reason:
    return Reason("intent") if label is UNSET else Reason("intent", label.head, label.label)


def _because_of(row: int, items: ShownItems) -> Reason:
    return Reason("because_of", item_id=items.item_ids[row], title=items.titles[row]) if row else _BECAUSE_OF
