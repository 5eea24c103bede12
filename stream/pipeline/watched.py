"""Rows of each member's last watched items, as of each play: the watched filter hides them, or "continue" brings them back.

Derived state, kept for recently active members, so that a play costs the look-up of one item and not of a whole history.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.features.features import ItemRows
from intentrec_core.history.history import EventLayout
from stream.pipeline.batch_rows import BatchRows
from stream.pipeline.folding import ContextRun

if TYPE_CHECKING:
    from stream.pipeline.shown_items import ShownItems

WatchedRows = NDArray[np.int64]


class WatchedCache:
    """The last w item rows of each member, oldest first, 0 for an unknown item; for one bundle."""

    def __init__(self, layout: EventLayout, vocabulary: ItemRows, max_members: int) -> None:
        self._layout = layout
        self._vocabulary = vocabulary
        self._max_members = max_members
        #: With each member's rows, the number of the rows of added items that they were looked up in.
        self._held: OrderedDict[MemberKey, tuple[WatchedRows, int]] = OrderedDict()
        self._added: Mapping[int, int] = {}
        self._added_number = 0

    def __len__(self) -> int:
        return len(self._held)

    def forget(self, member: MemberKey) -> None:
        """Drops a member's rows."""
        self._held.pop(member, None)

    def of(self, batch: BatchRows, items: ShownItems) -> list[WatchedRows]:
        """For every row, the last w items watched as of its play, including that play.

        ``items``: those that the bundle shows; in later calls, the same or later ones.

        Shapes: one i64[up to w] for each row; they may share memory.
        Cost: a copy of w rows per run, and a look-up of w items for a member who is not cached.
        """
        limit = self._layout.watched
        if not limit:
            return [np.zeros(0, dtype=np.int64)] * len(batch)
        if items.added is not self._added:
            self._added, self._added_number = items.added, self._added_number + 1
        item_row = items.rows(batch.plays["item_hash"], batch.item_row)
        watched: list[WatchedRows] = []
        for run, first in zip(batch.runs, batch.first_row, strict=True):
            rows = self._rows(run, item_row[first : first + run.num_outputs], items)
            end = len(rows) - run.num_outputs + 1
            watched += [rows[max(0, stop - limit) : stop] for stop in range(end, end + run.num_outputs)]
            self._held[run.member] = rows[-limit:], self._added_number
            self._held.move_to_end(run.member)
        while len(self._held) > self._max_members:
            self._held.popitem(last=False)
        return watched

    def _rows(self, run: ContextRun, new: NDArray[np.int64], items: ShownItems) -> WatchedRows:
        cached = self._cached(run.member, len(items.serving.vocabulary))
        if cached is not None and run.is_replay:
            return cached
        num_plays = len(run.context) // self._layout.size
        if cached is not None and run.first_changed + run.num_outputs == num_plays:  # appended plays only
            return np.concatenate([cached, new])
        held = self._layout.view(run.context)["item_hash"]
        hashes = np.concatenate([np.frombuffer(run.evicted_items, dtype="<u8"), held])
        hashes = hashes[-(self._layout.watched + run.num_outputs) :]
        return items.rows(hashes, self._vocabulary.rows(hashes))

    def _cached(self, member: MemberKey, num_rows: int) -> WatchedRows | None:
        """A member's rows, None where they are not known now. ``num_rows``: those of the bundle."""
        rows, added_number = self._held.get(member, (None, 0))
        if rows is None or added_number == self._added_number:
            return rows
        # An unknown item may have a row by now, and the row of an added one may be another's.
        return rows if ((rows > 0) & (rows < num_rows)).all() else None
