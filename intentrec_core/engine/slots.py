"""Who holds which slot of the pool of cached keys and values. It knows members and holds no tensors.

A slot is derived state: losing one costs a prefill, never correctness.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

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
        self._held: OrderedDict[str, Slot] = OrderedDict()
        self._free = list(range(num_slots - 1, -1, -1))
        self.num_slots = num_slots
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, user_id: str) -> bool:
        """Whether a member has a slot; not a use of it."""
        return user_id in self._held

    def find(self, user_id: str) -> Slot | None:
        """A member's slot, now the most recently used; None where there is none."""
        slot = self._held.get(user_id)
        if slot is not None:
            self._held.move_to_end(user_id)
        return slot

    def peek(self, user_id: str) -> Slot | None:
        """A member's slot; not a use of it."""
        return self._held.get(user_id)

    def allocate(self, user_id: str) -> Slot:
        """An empty slot for a member who has none, taken from the least recently used one if need be."""
        if self._free:
            slot = Slot(self._free.pop())
        else:
            _, evicted = self._held.popitem(last=False)
            self.num_evictions += 1
            slot = Slot(evicted.index)
        self._held[user_id] = slot
        return slot

    def release(self, user_id: str) -> None:
        """Frees a member's slot, if there is one."""
        slot = self._held.pop(user_id, None)
        if slot is not None:
            self._free.append(slot.index)

    def users(self) -> list[str]:
        """Members with a slot, most recently used first."""
        return list(reversed(self._held))
