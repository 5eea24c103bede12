"""Streams of events: one slot for each reader, with the newest state it has not been sent yet.

A reader that is slow, or away for a moment, gets the newest message of each kind and misses those between. So a stream costs the
same memory however slow its reader is: two references, and what the socket buffers.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable

from stream.gateway.member_states import Kind, MemberState, Newest
from stream.gateway.problems import Problem, ProblemKind

#: Open streams of one member: tabs and devices of a person, so that one token cannot take every stream.
MAX_OF_MEMBER = 20
#: How soon a browser connects again after its stream ended.
RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": heartbeat\n\n"
_ID = re.compile(r"[0-9]{1,10}" + len(Kind) * r"-(x|[0-9]{1,19})")
#: Messages that wait in a stream of all members: a few seconds of what it may send.
_MAX_WAITING = 1000


class Cursor:
    """How far a stream is: the partition of the plays, and the offset of the last message sent of each kind; -1 for none."""

    __slots__ = ("offsets", "partition")

    def __init__(self, partition: int = -1, offsets: dict[Kind, int] | None = None) -> None:
        self.partition = partition
        self.offsets = offsets or {}

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The inverse of ``str()``; the beginning for anything else, because an id that is not ours names nothing."""
        if not _ID.fullmatch(text):
            return cls()
        partition, *offsets = text.split("-")
        return cls(int(partition), {kind: int(sent) for kind, sent in zip(Kind, offsets, strict=True) if sent != "x"})

    def __str__(self) -> str:
        return "-".join([str(self.partition), *(str(self.offsets.get(kind, "x")) for kind in Kind)])

    def is_past(self, kind: Kind, message: Newest) -> bool:
        """Whether this message, or a newer one, was sent."""
        return message.partition == self.partition and message.offset <= self.offsets.get(kind, -1)

    def advance(self, kind: Kind, message: Newest) -> None:
        """The message is sent."""
        if message.partition != self.partition:  # the plays topic has other partitions than when the stream began
            self.partition, self.offsets = message.partition, {}
        self.offsets[kind] = message.offset


class StreamSlot:
    """What one stream has to send next."""

    __slots__ = ("end_reason", "pending", "wake")

    def __init__(self) -> None:
        self.pending: dict[Kind, Newest] = {}
        self.end_reason: str | None = None
        self.wake = asyncio.Event()

    def put(self, kind: Kind, message: Newest) -> bool:
        """Offers a message. Returns whether it took the place of one that was not sent."""
        is_skipped = kind in self.pending
        self.pending[kind] = message
        self.wake.set()
        return is_skipped

    def end(self, reason: str) -> None:
        """Ends the stream: what waits is sent first. An empty ``reason`` says nothing to the reader, who is gone."""
        self.end_reason = reason
        self.wake.set()

    async def wait(self, timeout_s: float) -> bool:
        """Returns once there is something to send or the stream ends; False after ``timeout_s`` without either."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True


class SlotOfAllMembers(StreamSlot):
    """What a stream of all members has to send next: the newest message of each kind and member, of those that changed last.

    ``num_skipped``: messages that were not sent, since the last time that the reader was told.
    """

    __slots__ = ("num_skipped", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.waiting: OrderedDict[tuple[str, Kind], Newest] = OrderedDict()
        self.num_skipped = 0

    def offer(self, kind: Kind, user_id: str, message: Newest) -> None:
        """Offers a message of any member."""
        self.num_skipped += self.waiting.pop((user_id, kind), None) is not None
        self.waiting[user_id, kind] = message
        if len(self.waiting) > _MAX_WAITING:
            self.waiting.popitem(last=False)
            self.num_skipped += 1
        self.wake.set()


class Streams:
    """The open streams by member, at most ``max_open`` in all. Owned by the event loop."""

    def __init__(self, max_open: int, on_skipped: Callable[[], None] = lambda: None) -> None:
        self._max_open = max_open
        self._slots: dict[str, set[StreamSlot]] = {}
        self._of_all: set[SlotOfAllMembers] = set()
        self._on_skipped = on_skipped
        self.num_open = 0

    def open_all(self) -> SlotOfAllMembers:
        """A slot that gets the messages of all members from now on.

        Raises: Problem (too_many_streams) where as many are open as may be.
        """
        self._check_room()
        slot = SlotOfAllMembers()
        self._of_all.add(slot)
        self.num_open += 1
        return slot

    def close_all(self, slot: SlotOfAllMembers) -> None:
        """The stream of such a slot has ended."""
        self._of_all.remove(slot)
        self.num_open -= 1

    def open(self, user_id: str) -> StreamSlot:
        """A slot that gets the member's messages from now on.

        Raises: Problem (too_many_streams) where as many are open as may be, in all or of one member.
        """
        self._check_room()
        if len(self._slots.get(user_id, ())) >= MAX_OF_MEMBER:
            raise Problem(ProblemKind.TOO_MANY_STREAMS, f"{MAX_OF_MEMBER} of this member are open: close one")
        slot = StreamSlot()
        self._slots.setdefault(user_id, set()).add(slot)
        self.num_open += 1
        return slot

    def _check_room(self) -> None:
        if self.num_open >= self._max_open:
            raise Problem(ProblemKind.TOO_MANY_STREAMS, f"{self.num_open} are open; allowed: gateway_max_streams")

    def close(self, user_id: str, slot: StreamSlot) -> None:
        """The stream of a slot has ended."""
        slots = self._slots[user_id]
        slots.remove(slot)
        self.num_open -= 1
        if not slots:
            del self._slots[user_id]

    def offer(self, kind: Kind, member: MemberState, message: Newest) -> None:
        """Gives a message to the streams of its member."""
        for slot in self._slots.get(member.user_id, ()):
            if slot.put(kind, message):
                self._on_skipped()
        for of_all in self._of_all:
            of_all.offer(kind, member.user_id, message)

    def end_all(self, reason: str) -> None:
        """Ends every stream."""
        self.end(reason, lambda user_id: True)
        for slot in self._of_all:
            slot.end(reason)

    def end(self, reason: str, belongs: Callable[[str], bool]) -> None:
        """Ends the streams of the members that ``belongs`` names."""
        for user_id, slots in self._slots.items():
            if belongs(user_id):
                for slot in slots:
                    slot.end(reason)


def event(kind: Kind, message: Newest, cursor: Cursor) -> bytes:
    """One server-sent event."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(cursor).encode(), kind.encode(), message.value)


def bye(reason: str) -> bytes:
    """The last event of a stream that ends in good order."""
    return b'event: bye\ndata: {"reason":"%b"}\n\n' % reason.encode()


async def events_of(
    slot: StreamSlot, cursor: Cursor, newest: Iterable[tuple[Kind, Newest]], heartbeat_s: float
) -> AsyncIterator[bytes]:
    """The bytes of a member's stream, from the state as it is (``newest``) on, until its slot is ended."""
    for kind, message in newest:
        slot.pending.setdefault(kind, message)
    yield RETRY
    while True:
        for kind in Kind:
            if kind in slot.pending:
                message = slot.pending.pop(kind)
                if not cursor.is_past(kind, message):
                    cursor.advance(kind, message)
                    yield event(kind, message, cursor)
        if slot.pending:  # came while the socket took the events above
            continue
        if slot.end_reason is not None:
            if slot.end_reason:
                yield bye(slot.end_reason)
            return
        if not await slot.wait(heartbeat_s):
            yield HEARTBEAT


async def events_of_all(slot: SlotOfAllMembers, per_s: int, heartbeat_s: float) -> AsyncIterator[bytes]:
    """The bytes of a stream of all members: at most ``per_s`` messages a second, until its slot is ended."""
    yield RETRY
    while True:
        while slot.waiting and slot.end_reason is None:
            (_, kind), message = slot.waiting.popitem(last=False)
            yield b"event: %b\ndata: %b\n\n" % (kind.encode(), message.value)
            if slot.num_skipped:
                skipped, slot.num_skipped = slot.num_skipped, 0
                yield b'event: skipped\ndata: {"events":%d}\n\n' % skipped
            await asyncio.sleep(1 / per_s)
        if slot.end_reason is not None:
            if slot.end_reason:
                yield bye(slot.end_reason)
            return
        if not await slot.wait(heartbeat_s):
            yield HEARTBEAT
