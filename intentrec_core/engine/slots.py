"""Allocation of cache slots to members. This module holds no tensors.

A slot is derived state: losing one costs a prefill, never a wrong result.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from intentrec_core.engine.member_key import MemberKey

NO_LABEL = -1


@dataclass(slots=True)
class Slot:
    """The cached part of a member's context: ``length`` plays from ``anchor`` on; ``tail`` is the last of them.

    ``tail`` is the packed play itself. If the context no longer has this play at that place, the slot caches a
    different past.
    """

    index: int
    anchor: int = 0
    length: int = 0
    tail: bytes = b""
    primary: int = NO_LABEL


class SlotAllocator:
    """Assigns slots to members. When all are taken, the least recently used one is reassigned."""

    def __init__(self, num_slots: int) -> None:
        self._held: OrderedDict[MemberKey, Slot] = OrderedDict()
        self._free = list(range(num_slots - 1, -1, -1))
        self.num_slots = num_slots
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, member: MemberKey) -> bool:
        """Whether a member has a slot. Does not count as a use."""
        return member in self._held

    def find(self, member: MemberKey) -> Slot | None:
        """A member's slot, marked as the most recently used; None if the member has none."""
        slot = self._held.get(member)
        if slot is not None:
            self._held.move_to_end(member)
        return slot

    def peek(self, member: MemberKey) -> Slot | None:
        """A member's slot. Does not count as a use."""
        return self._held.get(member)

    def allocate(self, member: MemberKey) -> Slot:
        """An empty slot for a member that has none. If no slot is free, the least recently used one is taken."""
        if self._free:
            slot = Slot(self._free.pop())
        else:
            _, evicted = self._held.popitem(last=False)
            self.num_evictions += 1
            slot = Slot(evicted.index)
        self._held[member] = slot
        return slot

    def release(self, member: MemberKey) -> None:
        """Frees a member's slot, if it has one."""
        slot = self._held.pop(member, None)
        if slot is not None:
            self._free.append(slot.index)

    def members(self) -> list[MemberKey]:
        """Members that have a slot, most recently used first."""
        return list(reversed(self._held))
