"""Stored plays in the packed form of the ground state, one member after another.

Training and evaluation read the same bytes that a worker holds, so a feature means the same in all three.

Shapes: N plays of all members, U members.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intentrec_core.errors import DataError
from intentrec_core.history.history import MISSING_DURATION_S, AttributeColumn, EventLayout, hash64, text_hash
from intentrec_core.times import iso_time


@dataclass(frozen=True, slots=True)
class MemberPlays:
    """Every member's plays in event-time order, without repeated event ids.

    Shapes: events structured[N] (the layout's dtype), bounds i64[U + 1] index of each member's first play, user_ids
    [U], order i64[N] each play's place among all plays in time, member i64[N] index of each play's member.
    ``num_repeats``: plays that were left out, because their member has an earlier play with the same event id.
    """

    layout: EventLayout
    user_ids: Sequence[str]
    events: NDArray[np.void]
    bounds: NDArray[np.int64]
    order: NDArray[np.int64]
    member: NDArray[np.int64]
    num_repeats: int = 0

    def __len__(self) -> int:
        """Number of members."""
        return len(self.user_ids)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Index of the first play, and of the last play plus one, of each member."""
        return zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True)

    def with_shuffled_ties(self, random: np.random.Generator) -> MemberPlays:
        """The same plays, with plays of one member at the same time in an order drawn from ``random``, because their true
        order is not known.

        Cost: O(N log N).
        """
        shuffled = np.lexsort((random.random(len(self.events)), self.events["ts_ms"], self.member))
        return dataclasses.replace(self, events=self.events[shuffled], order=self.order[shuffled])

    def packed(self, start: int, stop: int) -> bytes:
        """Plays ``start`` to ``stop`` of ``events`` as the bytes of a context."""
        return self.events[start:stop].tobytes()


def pack_members(layout: EventLayout, plays: pa.Table) -> MemberPlays:
    """Packs a table of plays in event-time order (:data:`intentrec_core.plays.table.PLAYS`).

    Raises: DataError when a value that the domain reads as a number is not one, with its play and name.
    Cost: O(N log N) time; at least 40 bytes per play.
    """
    packed = _pack(layout, plays)
    users = plays.column("user_id").combine_chunks().dictionary_encode()
    member = users.indices.to_numpy().astype(np.int64)
    order = np.argsort(member, kind="stable")
    order = order[_first_of_each(member[order], packed["event_hash"][order])]
    num = len(users.dictionary)
    member = member[order]
    return MemberPlays(
        layout=layout,
        user_ids=users.dictionary.to_pylist(),
        events=packed[order],
        bounds=np.searchsorted(member, np.arange(num + 1)),
        order=order,
        member=member,
        num_repeats=plays.num_rows - len(order),
    )


def _first_of_each(member: NDArray[np.int64], event_hash: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for plays that are the first with their event id among their member's plays."""
    order = np.lexsort((np.arange(len(member)), event_hash, member))
    same = (member[order][1:] == member[order][:-1]) & (event_hash[order][1:] == event_hash[order][:-1])
    first = np.ones(len(member), dtype=np.bool_)
    first[order[1:][same]] = False
    return first


def _pack(layout: EventLayout, plays: pa.Table) -> NDArray[np.void]:
    """All plays as one structured array, packed column by column."""
    packed = np.zeros(plays.num_rows, dtype=layout.dtype)
    packed["item_hash"] = _by_distinct(plays.column("item_id"), text_hash, np.dtype("<u8"))
    packed["event_hash"] = np.fromiter(map(hash64, plays.column("event_id").to_pylist()), "<u8", plays.num_rows)
    packed["ts_ms"] = plays.column("ts_ms").to_numpy()
    packed["duration_s"] = pc.fill_null(plays.column("duration_s"), MISSING_DURATION_S).to_numpy()
    for attribute in layout.attributes:
        packed[attribute.name] = _attribute(layout, attribute, plays, _play)
    return packed


def check_attributes(layout: EventLayout, plays: pa.Table) -> None:
    """Checks what the domain reads of actions and contexts, in a table whose rows are still those of the file.

    Raises: DataError when a value that the domain reads as a number is not one, with its row and name.
    """
    for attribute in layout.attributes:
        _attribute(layout, attribute, plays, lambda _, row: f"row {row}")


def _attribute(
    layout: EventLayout, attribute: AttributeColumn, plays: pa.Table, place: Callable[[pa.Table, int], str]
) -> NDArray[Any]:
    """The packed column of an attribute. ``place`` names a row of the table in an error."""
    name, key, convert = attribute
    values = attribute_column(plays, key)
    try:
        return _by_distinct(values, convert, layout.dtype[name])
    except ValueError as error:
        row, value = _first_refused(values, convert)
        shown = key if key == "action" else f"context {key}"
        raise DataError(
            f"plays: {place(plays, row)}, {shown}: {repr(value)[:80]} is not a finite number; allowed: finite numbers"
        ) from error


def _play(plays: pa.Table, row: int) -> str:
    """A play in words. Its row is no row of a file, because the table is in order of time."""
    event_id, user_id, ts_ms = (plays.column(name)[row].as_py() for name in ("event_id", "user_id", "ts_ms"))
    return f"event_id {event_id!r} of user {user_id!r} at {iso_time(ts_ms)}"


def _first_refused(values: pa.ChunkedArray, convert: Callable[[Any], Any]) -> tuple[int, Any]:
    """The first row whose value has no number, and that value."""
    for row, value in enumerate(values.to_pylist()):
        try:
            convert(value)
        except ValueError:
            return row, value
    raise AssertionError("one of the values is refused")


def attribute_column(plays: pa.Table, key: str) -> pa.ChunkedArray:
    """The plays' values for ``key``, which is action or a key of the context; null where missing."""
    return plays.column("action") if key == "action" else pc.map_lookup(plays.column("context"), key, "last")


def _by_distinct(column: pa.ChunkedArray, convert: Callable[[Any], Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """``convert`` of every value, and of None where null, called once for each distinct value."""
    encoded = column.combine_chunks().dictionary_encode()
    values = np.array([convert(value) for value in (*encoded.dictionary.to_pylist(), None)], dtype=dtype)
    return values[pc.fill_null(encoded.indices, len(values) - 1).to_numpy()]
