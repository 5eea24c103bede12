"""Ground state: what one member played, ordered, de-duplicated, packed binary.

A history is a pure function of the plays folded into it. It holds no row number, bundle or anything else that comes
from weights, never looks at a clock, and everything derived (caches, intents, lists) can be rebuilt from it.

With n = ``domain.window``, a history of k plays holds exactly its current context, plays ``[anchor(k), k)`` in event-time
order: everything while k <= 2n, then between n + 1 and 2n plays (the anchored window).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from intentrec_core.domain import Domain, FieldKind, FilterKind, value_text

MISSING_DURATION_S = -1.0
_HASH = struct.Struct("<Q")
_TIME_OFFSET = 16  # of ts_ms in a packed play, behind the two hashes
_TIME = struct.Struct("<q")


def hash64(text: str | bytes) -> int:
    """The 64-bit identity of an item, event or text: xxh3 of its UTF-8 bytes."""
    return xxhash.xxh3_64_intdigest(text.encode() if isinstance(text, str) else text)


def anchor(count: int, window: int) -> int:
    """First play (zero-based) of the context after a member's ``count``-th play."""
    return max(0, ((count - 1) // window - 1) * window)


class Outcome(Enum):
    """What folding a play did."""

    APPENDED = "appended"
    INSERTED = "inserted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too_late"
    REPLAYED = "replayed"

    @property
    def changed(self) -> bool:
        """Whether the state is another one now."""
        return self in (Outcome.APPENDED, Outcome.INSERTED)


class Fold(NamedTuple):
    """What folding one play did to a history.

    ``position`` is the play's place among the plays held now, ``evicted`` how many plays left at the old end (then
    every position moved down by as many, and the anchor moved). Where nothing changed, position is the newest.
    """

    outcome: Outcome
    position: int
    evicted: int


@dataclass(frozen=True, kw_only=True)
class PackedPlay:
    """One play as the ground state keeps it."""

    data: bytes
    ts_ms: int
    event_hash: int


class EventLayout:
    """How a play is packed: little endian, fixed size, declared by the domain.

    ``dtype`` columns: item_hash u8, event_hash u8, ts_ms i8, duration_s f4 (-1 missing), one per event field (categorical:
    u2 code; number: f4, NaN missing), one per event filter (``filter_<event_key>``: f4 number or u8 hash, 0 missing).
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        columns: list[tuple[str, str]] = [
            ("item_hash", "<u8"),
            ("event_hash", "<u8"),
            ("ts_ms", "<i8"),
            ("duration_s", "<f4"),
        ]
        columns += [(f.name, "<f4" if f.kind is FieldKind.BUCKETED else "<u2") for f in domain.event_fields]
        columns += [
            (f"filter_{f.event_key}", "<f4" if f.kind is FilterKind.AT_MOST else "<u8") for f in domain.event_filters
        ]
        self.dtype = np.dtype(columns)
        self.size = self.dtype.itemsize
        self.window = domain.window
        self.watched = domain.watched
        self.gap_ms = int(domain.session_gap_s * 1000)
        codes = {"<u8": "Q", "<i8": "q", "<f4": "f", "<u2": "H"}
        self._pack = struct.Struct("<" + "".join(codes[kind] for _, kind in columns)).pack

    def pack(
        self,
        *,
        item_id: str,
        event_id: str,
        ts_ms: int,
        duration_s: float | None,
        attributes: Mapping[str, Any],
    ) -> PackedPlay:
        """Packs a valid play; ``attributes`` are ``action`` and the entries of ``context``.

        A categorical value that the domain does not declare is packed as missing.

        Raises: ValueError when a number field or filter holds something that is no finite number.
        """
        event_hash = hash64(event_id)
        values: list[Any] = [
            hash64(item_id),
            event_hash,
            ts_ms,
            MISSING_DURATION_S if duration_s is None else duration_s,
        ]
        for field in self.domain.event_fields:
            value = attributes.get(field.key)
            if field.kind is FieldKind.BUCKETED:
                values.append(_number(field.key, value))
            else:
                values.append(0 if value is None else field.value_codes.get(value_text(value), 0))
        for filter_ in self.domain.event_filters:
            value = attributes.get(filter_.event_key)
            if filter_.kind is FilterKind.AT_MOST:
                values.append(_number(filter_.event_key, value))
            else:
                values.append(0 if value is None else hash64(value_text(value)))
        return PackedPlay(data=self._pack(*values), ts_ms=ts_ms, event_hash=event_hash)

    def ts_ms(self, events: bytes | bytearray, position: int) -> int:
        """Event time of one packed play, in milliseconds."""
        return int(_TIME.unpack_from(events, position * self.size + _TIME_OFFSET)[0])

    def has_item_before(self, events: bytes | bytearray, position: int) -> bool:
        """Whether the item of the play at ``position`` stands earlier in ``events``. Cost: a scan of bytes, no array."""
        end = position * self.size
        needle, at = events[end : end + _HASH.size], -1
        while (at := events.find(needle, at + 1, end)) >= 0:
            if at % self.size == 0:  # any other place is a chance match inside another column
                return True
        return False

    def view(self, events: bytes | bytearray | memoryview) -> NDArray[np.void]:
        """The packed plays as a structured array, without a copy."""
        return np.frombuffer(events, dtype=self.dtype)


class History:
    """One member's ground state.

    ``count`` is k, the number of all plays ever applied; ``last_offset`` the source offset of the last one applied;
    ``events`` the packed context; ``evicted_items`` hashes of the last items that left it (at most w);
    ``carried_session_ms`` when the session of the oldest play held began, if that was before it.
    """

    __slots__ = ("carried_session_ms", "count", "events", "evicted_items", "last_offset")

    def __init__(self) -> None:
        self.count = 0
        self.last_offset = -1
        self.events = bytearray()
        self.evicted_items = b""
        self.carried_session_ms = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and all(getattr(self, a) == getattr(other, a) for a in History.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def num_events(self, layout: EventLayout) -> int:
        """How many plays are held: the length of the context."""
        return len(self.events) // layout.size

    def anchor(self, layout: EventLayout) -> int:
        """Index of the oldest play held, among all plays ever applied."""
        return anchor(self.count, layout.window)

    def view(self, layout: EventLayout) -> NDArray[np.void]:
        """The context as a structured array. A view: copy it before the next fold, which may not resize under it."""
        return layout.view(self.events)

    def apply(self, layout: EventLayout, play: PackedPlay, offset: int) -> Fold:
        """Folds one play in.

        Cost: O(context) bytes scanned for the duplicate; a late play moves the ones behind it.
        """
        size, events = layout.size, self.events
        newest = len(events) // size - 1
        if offset <= self.last_offset:
            return Fold(Outcome.REPLAYED, newest, 0)
        if self._holds(size, play.event_hash):
            return Fold(Outcome.DUPLICATE, newest, 0)
        position = newest + 1
        while position and layout.ts_ms(events, position - 1) > play.ts_ms:
            position -= 1
        if position == 0 and newest >= 0 and self.anchor(layout) > 0:
            return Fold(Outcome.TOO_LATE, newest, 0)
        outcome = Outcome.APPENDED if position == newest + 1 else Outcome.INSERTED
        events[position * size : position * size] = play.data
        before = self.anchor(layout)
        self.count += 1
        self.last_offset = offset
        evicted = self.anchor(layout) - before
        if evicted:
            self._evict(layout, evicted)
        return Fold(outcome, max(0, position - evicted), evicted)

    def session_start_ms(self, layout: EventLayout, position: int) -> int:
        """Event time at which the session of the play at ``position`` began: after the last gap above the session gap."""
        times = self.view(layout)["ts_ms"][: position + 1]
        breaks = np.flatnonzero(np.diff(times) > layout.gap_ms)
        if len(breaks):
            return int(times[breaks[-1] + 1])
        return self.carried_session_ms if self.anchor(layout) else int(times[0])

    def watched_hashes(self, layout: EventLayout) -> NDArray[np.uint64]:
        """Item hashes of the last w plays, oldest first."""
        held = self.view(layout)["item_hash"]
        evicted = np.frombuffer(self.evicted_items, dtype="<u8")
        return np.concatenate([evicted, held])[-layout.watched :] if layout.watched else held[:0].copy()

    def _holds(self, size: int, event_hash: int) -> bool:
        needle, at = _HASH.pack(event_hash), -1
        while (at := self.events.find(needle, at + 1)) >= 0:
            if at % size == _HASH.size:  # any other place is a chance match inside another column
                return True
        return False

    def _evict(self, layout: EventLayout, num: int) -> None:
        self.carried_session_ms = self._session_start_at_eviction(layout, num)
        items = np.frombuffer(bytes(self.events[: num * layout.size]), dtype=layout.dtype)["item_hash"].tobytes()
        kept = layout.watched * _HASH.size
        self.evicted_items = (self.evicted_items + items)[-kept:] if kept else b""
        del self.events[: num * layout.size]

    def _session_start_at_eviction(self, layout: EventLayout, oldest: int) -> int:
        times = np.frombuffer(bytes(self.events[: (oldest + 1) * layout.size]), dtype=layout.dtype)["ts_ms"]
        breaks = np.flatnonzero(np.diff(times) > layout.gap_ms)
        if len(breaks):
            return int(times[breaks[-1] + 1])
        was_carried = anchor(self.count - 1, layout.window) > 0
        return self.carried_session_ms if was_carried else int(times[0])


def _number(key: str, value: Any) -> float:
    if value is None:
        return float("nan")
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"{key} is not a finite number")
    return number
