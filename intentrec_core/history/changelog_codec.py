"""Histories as changelog records: a ring of small blocks, so that a play rewrites one block and not a whole history.

A member's context is split into blocks of ``BLOCK_PLAYS`` plays by absolute play index. Block b is stored under the key
of slot ``b mod ring``. After compaction, the topic therefore holds at most one ring per member, and a play writes on
average half a block of plays and two headers. What has left the context (watched items, the newest evicted play) has a
record of its own, which is written only when the anchor moves: once every n plays.

    key    user id (UTF-8) ‖ 0x00 ‖ kind (E events, W what was evicted) ‖ slot u16
    E      version u8, count u32, last offset i64, first index u32, packed plays
    W      version u8, count u32, session start i64, time i64, num u16 (all three of the newest evicted play: the start of
           its session, its event time, and how many event hashes follow), event hashes u64 ..., item hashes u64 ...
    marker 0x00 'M' → version u8, partitions u32, next offset i64, domain fingerprint (16 bytes)

Schema 1 differs in W alone: version u8, count u32, session start i64 (of the oldest play held), item hashes u64 ... It is also
written when a play becomes the oldest one held. A history read from it does not know the newest evicted play. Until its next
eviction the oldest play held stands for it, and what is not newer is late: no play that was evicted can be folded in again.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from intentrec_core.errors import StateError
from intentrec_core.history.history import EventLayout, History, anchor

#: The schemas that are read. The newest one is written, or an older one where workers that do not know it still run.
OLDEST_SCHEMA_VERSION, SCHEMA_VERSION = 1, 2
#: A play writes on average 4.5 packed plays and 35 bytes of header and key: about 200 bytes for 32-byte plays, against
#: a budget of 256.
BLOCK_PLAYS = 8

_HASH_BYTES = 8
#: The limit of ids in the contract.
MAX_USER_ID_BYTES = 256

MARKER_KEY = b"\x00M"
_KEY_TAIL = struct.Struct("<xcH")
_EVENTS = struct.Struct("<BIqI")
_EVICTED = struct.Struct("<BIqqH")
_EVICTED_1 = struct.Struct("<BIq")
_MARKER = struct.Struct("<BIq16s")


@dataclass(frozen=True, kw_only=True)
class Marker:
    """Identifies the plays that a partition's state was folded from. It is written in every transaction and checked before
    a partition serves.
    """

    num_partitions: int
    next_offset: int
    fingerprint: str
    schema_version: int = SCHEMA_VERSION

    def encode(self) -> bytes:
        """The value of the marker record."""
        return _MARKER.pack(self.schema_version, self.num_partitions, self.next_offset, self.fingerprint.encode())

    @classmethod
    def decode(cls, value: bytes) -> Marker:
        """Decodes a marker record.

        Raises: StateError when its schema is unknown to this code, or the bytes are not a marker.
        """
        if not value or not _is_readable(value):
            raise _unknown_schema(value)
        if len(value) != _MARKER.size:
            raise StateError(
                f"a partition marker has {len(value)} bytes, must have {_MARKER.size}: the changelog is damaged"
            )
        version, partitions, offset, fingerprint = _MARKER.unpack(value)
        return cls(
            schema_version=version, num_partitions=partitions, next_offset=offset, fingerprint=fingerprint.decode()
        )


def encode_changes(
    layout: EventLayout,
    user_id: str,
    history: History,
    *,
    first_changed: int,
    anchor_moved: bool,
    schema: int = SCHEMA_VERSION,
) -> dict[bytes, bytes]:
    """Records, by key, that bring the changelog up to date with ``history``.

    ``first_changed`` is the lowest position, among the plays held, of a play that is new or has moved since the last
    records were written. ``schema`` is the version to write.
    """
    size, count, events = layout.size, history.count, history.events
    start, user, ring = anchor(count, layout.window), user_id.encode(), ring_size(layout)
    first_block = (start + first_changed) // BLOCK_PLAYS
    records = {}
    for block in range(first_block, (count - 1) // BLOCK_PLAYS + 1):
        low, high = block * BLOCK_PLAYS, (block + 1) * BLOCK_PLAYS
        if low < start:
            low = start
        head = _EVENTS.pack(schema, count, history.last_offset, low)
        plays = events[(low - start) * size : (high - start) * size]
        records[user + _KEY_TAIL.pack(b"E", block % ring)] = head + plays
    # Schema 1 keeps the session of the oldest play held. A play that is inserted before it has another one.
    has_new_oldest = schema == OLDEST_SCHEMA_VERSION and first_changed == 0 and start > 0
    if anchor_moved or has_new_oldest:
        records[user + _KEY_TAIL.pack(b"W", 0)] = _encode_evicted(layout, history, schema)
    return records


def _encode_evicted(layout: EventLayout, history: History, schema: int) -> bytes:
    if schema == OLDEST_SCHEMA_VERSION:
        return _EVICTED_1.pack(schema, history.count, history.oldest_session_ms(layout)) + history.evicted_items
    events = history.newest_evicted
    head = _EVICTED.pack(
        schema, history.count, history.evicted_session_ms, history.newest_evicted_ms, len(events) // _HASH_BYTES
    )
    return head + events + history.evicted_items


def _decode_evicted(layout: EventLayout, history: History, value: bytes) -> None:
    """Sets what is known of evicted plays in a history whose plays are read already."""
    if value[0] == OLDEST_SCHEMA_VERSION:
        history.evicted_session_ms = _EVICTED_1.unpack_from(value)[2]
        history.evicted_items = value[_EVICTED_1.size :]
        history.newest_evicted_ms = layout.ts_ms(history.events, 0)
        history.newest_evicted = layout.unknown_events
        return
    _, _, history.evicted_session_ms, history.newest_evicted_ms, num_events = _EVICTED.unpack_from(value)
    end = _EVICTED.size + num_events * _HASH_BYTES
    history.newest_evicted, history.evicted_items = value[_EVICTED.size : end], value[end:]


def _is_readable(value: bytes) -> bool:
    return OLDEST_SCHEMA_VERSION <= value[0] <= SCHEMA_VERSION


def _unknown_schema(value: bytes) -> StateError:
    found = value[0] if value else "nothing"
    return StateError(
        f"changelog schema {found}, this worker reads {OLDEST_SCHEMA_VERSION} to {SCHEMA_VERSION}: "
        "run the version that wrote it"
    )


def tombstone_keys(layout: EventLayout, user_id: str) -> Iterator[bytes]:
    """Every key that a member's records can have. Writing each of them without a value makes compaction remove the member."""
    user = user_id.encode()
    for slot in range(ring_size(layout)):
        yield user + _KEY_TAIL.pack(b"E", slot)
    yield user + _KEY_TAIL.pack(b"W", 0)


def user_of(key: bytes) -> bytes:
    """The user id, in UTF-8, of a record that is not a marker."""
    return key[: -_KEY_TAIL.size]


def ring_size(layout: EventLayout) -> int:
    """Number of slots of a ring: the largest number of blocks that a context of 2n plays can touch."""
    return 2 * layout.window // BLOCK_PLAYS + 2


def largest_record(layout: EventLayout) -> int:
    """Bytes of the largest record of a history, key and value."""
    events = _EVENTS.size + BLOCK_PLAYS * layout.size
    evicted = _EVICTED.size + len(layout.unknown_events) + layout.watched * _HASH_BYTES
    return MAX_USER_ID_BYTES + _KEY_TAIL.size + max(events, evicted)


class Restorer:
    """Rebuilds the histories of one partition from its changelog, fed in log order."""

    def __init__(self, layout: EventLayout) -> None:
        self._layout = layout
        self._latest: dict[bytes, bytes] = {}
        self._marker: bytes | None = None
        self.num_records = 0

    def feed(self, key: bytes, value: bytes | None) -> None:
        """Takes the next record. The last record of a key counts, as after compaction."""
        self.num_records += 1
        if key == MARKER_KEY:
            self._marker = value
        elif value is None:
            self._latest.pop(key, None)
        else:
            self._latest[key] = value

    def marker(self) -> Marker | None:
        """The last marker that was fed, or None.

        Raises: StateError as :meth:`Marker.decode` does.
        """
        return None if self._marker is None else Marker.decode(self._marker)

    def finish(self) -> tuple[dict[str, History], Marker | None]:
        """The histories by user id, and the marker if there was one.

        Raises: StateError when records contradict each other, which means that the changelog has lost some.
        """
        marker = self.marker()
        by_user: defaultdict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
        for key, value in self._latest.items():
            kind, _ = _KEY_TAIL.unpack(key[-_KEY_TAIL.size :])
            by_user[user_of(key)].append((kind, value))
        self._latest.clear()
        histories = {}
        while by_user:
            user, records = by_user.popitem()
            histories[user.decode()] = self._history(user, records)
        return histories, marker

    def _history(self, user: bytes, records: list[tuple[bytes, bytes]]) -> History:
        layout, history = self._layout, History()
        blocks: list[tuple[int, bytes]] = []
        evicted: bytes | None = None
        for kind, value in records:
            if not _is_readable(value):
                raise _unknown_schema(value)
            if kind == b"W":
                evicted = value
                continue
            _, count, last_offset, low = _EVENTS.unpack_from(value)
            blocks.append((low, value))
            if last_offset > history.last_offset:
                history.count, history.last_offset = count, last_offset
        start = anchor(history.count, layout.window)
        expected = start
        held = []
        for low, value in sorted(blocks):
            plays = value[_EVENTS.size + max(0, start - low) * layout.size :]
            if low + (len(value) - _EVENTS.size) // layout.size <= start:
                continue  # no longer part of the context, and not yet overwritten in the ring
            if max(low, start) != expected:
                break
            held.append(plays)
            expected += len(plays) // layout.size
        if expected != history.count:
            raise StateError(
                f"changelog of user {user.decode(errors='replace')!r} holds plays up to {expected} of {history.count}: "
                "records are missing; rebuild the state from the plays topic"
            )
        history.events = b"".join(held)
        if start:
            if evicted is None or anchor(_EVICTED_1.unpack_from(evicted)[1], layout.window) != start:
                raise StateError(
                    f"changelog of user {user.decode(errors='replace')!r} lacks what was evicted before play {start}: "
                    "records are missing; rebuild the state from the plays topic"
                )
            _decode_evicted(layout, history, evicted)
        return history
