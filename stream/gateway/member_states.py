"""The newest messages of each member, in memory: bounded, and with lower offsets dropped.

A subscriber keeps the highest ``source.offset`` of each topic and member, and drops every message at or below it: this is where
the gateway does so. The newest message of the bundle before is kept beside it, so that two bundles can be compared.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from itertools import islice

import msgspec
from msgspec import Struct

from stream.ops.metrics import ReadOutcome

#: What a member costs besides its messages: keys, dictionary entries and the objects around the bytes.
_MEMBER_BYTES = 600


class Kind(StrEnum):
    """The two kinds of messages, by the names of their events and paths."""

    INTENTS = "intents"
    RECOMMENDATIONS = "recommendations"


class Newest(Struct, frozen=True, gc=False):
    """A message as it is on the topic, on one line, and which play it answers. ``partition`` and ``offset``: of the play."""

    partition: int
    offset: int
    bundle: str
    value: bytes


class MemberState(Struct, gc=False):
    """What is known of one member: its newest messages, and those of the bundle before. ``partition``: of the output topics."""

    user_id: str
    partition: int
    newest: dict[Kind, Newest]
    before: dict[Kind, Newest]

    def of_bundle(self, kind: Kind, bundle: str | None) -> Newest | None:
        """The newest message, or that of one bundle; None if there is none."""
        newest = self.newest.get(kind)
        if bundle is None or newest is None or newest.bundle == bundle:
            return newest
        before = self.before.get(kind)
        return before if before is not None and before.bundle == bundle else None

    @property
    def num_bytes(self) -> int:
        """The memory that it takes, roughly."""
        messages = [*self.newest.values(), *self.before.values()]
        return _MEMBER_BYTES + len(self.user_id) + sum(len(message.value) for message in messages)


class _Place(Struct, frozen=True, gc=False):
    partition: int
    offset: int


class _Head(Struct, frozen=True, gc=False):
    """What the gateway reads of a message; the rest is passed on as it is."""

    user_id: str
    bundle: str
    source: _Place


_decode_head = msgspec.json.Decoder(_Head).decode

OnTaken = Callable[[Kind, MemberState, Newest], None]
"""Called with each message that became a member's newest."""


def _ignore(kind: Kind, member: MemberState, message: Newest) -> None:
    """For messages that are no news."""


class MemberStates:
    """Owned by the event loop. At most ``max_members`` and roughly ``max_bytes``: those that changed longest ago go first."""

    def __init__(
        self,
        *,
        max_members: int,
        max_bytes: int,
        on_taken: OnTaken = _ignore,
        on_taken_back: OnTaken = _ignore,
        on_evicted: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_members, self._max_bytes = max_members, max_bytes
        self._on_taken, self._on_taken_back, self._on_evicted = on_taken, on_taken_back, on_evicted
        self._members: OrderedDict[str, MemberState] = OrderedDict()
        self.num_bytes = 0
        self.num_evicted = 0

    def __len__(self) -> int:
        """Members in memory."""
        return len(self._members)

    def get(self, user_id: str) -> MemberState | None:
        """What is known of a member; None if that is nothing."""
        return self._members.get(user_id)

    def newest_first(self, limit: int) -> list[MemberState]:
        """The members that changed last."""
        return list(islice(reversed(self._members.values()), limit))

    def __iter__(self) -> Iterator[MemberState]:
        """All members, the one that changed longest ago first."""
        return iter(self._members.values())

    def take(self, kind: Kind, partition: int, key: bytes | None, value: bytes | None) -> ReadOutcome:
        """Takes a record of a topic; ``partition``: of that topic. Cost: 3 µs."""
        return self._take(kind, partition, key, value, self._on_taken)

    def take_back(self, kind: Kind, partition: int, key: bytes | None, value: bytes | None) -> ReadOutcome:
        """Takes a record that is read back: no news, but the store may lack it."""
        return self._take(kind, partition, key, value, self._on_taken_back)

    def take_stored(self, kind: Kind, partition: int, key: bytes, value: bytes) -> ReadOutcome:
        """Takes a message out of the store: nobody is told, since nothing has changed."""
        return self._take(kind, partition, key, value, _ignore)

    def _take(
        self, kind: Kind, partition: int, key: bytes | None, value: bytes | None, on_taken: OnTaken
    ) -> ReadOutcome:
        try:
            head = _decode_head(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ReadOutcome.UNREADABLE
        if key is None or key != head.user_id.encode():
            return ReadOutcome.UNREADABLE
        assert value is not None
        # An event's data is one line. They can only be between tokens: JSON escapes them in texts.
        if b"\n" in value or b"\r" in value:
            value = value.replace(b"\r", b" ").replace(b"\n", b" ")
        message = Newest(head.source.partition, head.source.offset, head.bundle, value)
        return self._put(kind, partition, head.user_id, message, on_taken)

    def _put(self, kind: Kind, partition: int, user_id: str, message: Newest, on_taken: OnTaken) -> ReadOutcome:
        member = self._members.get(user_id)
        if member is None:
            member = MemberState(user_id, partition, {}, {})
        known = member.newest.get(kind)
        if known is not None and known.partition == message.partition and message.offset <= known.offset:
            return ReadOutcome.STALE
        held = member.num_bytes if user_id in self._members else 0
        if known is not None and known.bundle != message.bundle:
            member.before[kind] = known
        member.newest[kind] = message
        self._members[user_id] = member
        self._members.move_to_end(user_id)
        self.num_bytes += member.num_bytes - held
        self._evict()
        on_taken(kind, member, message)
        return ReadOutcome.TAKEN

    def keep_partitions(self, partitions: Collection[int]) -> None:
        """Drops the members of all other partitions. Cost: a pass over all members."""
        gone = [member for member in self._members.values() if member.partition not in partitions]
        for member in gone:
            del self._members[member.user_id]
            self.num_bytes -= member.num_bytes

    def _evict(self) -> None:
        while len(self._members) > self._max_members or (self.num_bytes > self._max_bytes and len(self._members) > 1):
            _, oldest = self._members.popitem(last=False)
            self.num_bytes -= oldest.num_bytes
            self.num_evicted += 1
            self._on_evicted()
