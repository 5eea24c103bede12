"""Who holds which slot of the pool of cached keys and values. It knows members and holds no tensors.

A slot is derived state: losing one costs a prefill, never correctness.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from intentrec_core.engine.member_key import MemberKey

NO_LABEL = -1


@dataclass(slots=True)
class Slot:
    """What a slot caches: ``length`` plays of a context that begins at ``anchor``, the last of them ``tail``.

    ``tail`` is the packed play itself: a slot whose tail is not in the context any more caches another past.
    """

    index: int
    anchor: int = 0
    length: int = 0
    tail: bytes = b""
    primary: int = NO_LABEL


class SlotAllocator:
    """Members to slots, least recently used out first."""

    def __init__(self, num_slots: int) -> None:
        self._held: OrderedDict[MemberKey, Slot] = OrderedDict()
        self._free = list(range(num_slots - 1, -1, -1))
        self.num_slots = num_slots
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, member: MemberKey) -> bool:
        """Whether a member has a slot; not a use of it."""
        return member in self._held

    def find(self, member: MemberKey) -> Slot | None:
        """A member's slot, now the most recently used; None where there is none."""
        slot = self._held.get(member)
        if slot is not None:
            self._held.move_to_end(member)
        return slot

    def peek(self, member: MemberKey) -> Slot | None:
        """A member's slot; not a use of it."""
        return self._held.get(member)

    def allocate(self, member: MemberKey) -> Slot:
        """An empty slot for a member who has none, taken from the least recently used one if need be."""
        if self._free:
            slot = Slot(self._free.pop())
        else:
            _, evicted = self._held.popitem(last=False)
            self.num_evictions += 1
            slot = Slot(evicted.index)
        self._held[member] = slot
        return slot

    def release(self, member: MemberKey) -> None:
        """Frees a member's slot, if there is one."""
        slot = self._held.pop(member, None)
        if slot is not None:
            self._free.append(slot.index)

    def members(self) -> list[MemberKey]:
        """Members with a slot, most recently used first."""
        return list(reversed(self._held))
