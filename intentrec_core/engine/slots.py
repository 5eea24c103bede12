"""Which part of the cache's memory each member has. This module holds no tensors.

The memory is a row of slots. A slot has room for one whole context or for several, as the encoder says. It is divided into equal
parts, so that a member with few plays takes a small part, and moves to a larger one as the context grows:

    slot 0   ann             | bob             | cem     three parts, each with room for a whole context
    slot 1   dee         | eli         | free  | gus     four parts; one of them is free
    slot 2   hal | ivy | jo | free | kim | free | …      more parts; two of them are free

Sizes are counted in units, the smallest part that an encoder can keep. Where a whole context takes seven units, a slot with room
for one can be divided into one part of seven, two of three, three of two, or seven of one. A context of four units takes all of
it. A slot with room for three contexts can be divided into five parts of four as well, with one unit to spare (decision 119). A
part lies in one piece, because an encoder reads keys and values more slowly where they are scattered over the memory (decision
116).

When no part of the wanted size is free, members are evicted: either the least recently used member with a part of that size, or
all members of the slot that was used longest ago, whichever were used earlier. A slot's last use counts even if the member has
left the slot since: exact order would take a search, and changes one hit in 500. With one size, the least recently used member
is evicted. The members of one pass are looked up together, and none of them is evicted before the next look-up. A slot in which
one of them has a part cannot be divided in another way until then, so a pass has no more members than there are slots.

A part is derived state: losing one costs a prefill, never a wrong result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from intentrec_core.engine.member_key import MemberKey

NO_LABEL = -1


@dataclass(slots=True)
class Part:
    """A member's part of the memory: ``num_units`` from ``first_unit`` on. It caches ``length`` plays from ``anchor`` on;
    ``tail`` is the last of them. ``used``: the number of its latest use, counted over all parts.

    ``tail`` is the packed play itself. If the context no longer has this play at that place, the part caches a
    different past.
    """

    first_unit: int
    num_units: int
    anchor: int = 0
    length: int = 0
    tail: bytes = b""
    primary: int = NO_LABEL
    used: int = 0


@dataclass(slots=True)
class _Slot:
    """A slot in use: the size of its parts, the first units of the free ones, and the members who have the others."""

    num_units: int
    free: list[int]
    members: set[MemberKey]


def part_sizes(slot_units: int) -> list[int]:
    """The sizes of a part where a slot is divided into one, two, three or more equal parts. In units, ascending."""
    return sorted({slot_units // num_parts for num_parts in range(1, slot_units + 1)})


class SlotAllocator:
    """Assigns parts of slots to members. ``slot_units``: units of a slot; with one, every member has a whole slot."""

    def __init__(self, num_slots: int, slot_units: int = 1) -> None:
        self._slot_units, sizes = slot_units, part_sizes(slot_units)
        #: The size of the part, for each number of units that are wanted.
        self._size_for = [next(size for size in sizes if size >= units) for units in range(slot_units + 1)]
        #: Members, all and by the size of their part, the least recently used first; slots in use, the one first in which a part
        #: was used longest ago.
        self._held: OrderedDict[MemberKey, Part] = OrderedDict()
        self._by_size: dict[int, OrderedDict[MemberKey, Part]] = {size: OrderedDict() for size in sizes}
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        #: Slots with a free part, by the size of their parts; and slots that are not in use.
        self._open: dict[int, dict[int, _Slot]] = {size: {} for size in sizes}
        self._empty = list(range(num_slots - 1, -1, -1))
        #: Uses of parts so far, and how many there were before the latest look-up.
        self._uses = self._uses_before = 0
        self.num_slots = num_slots
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, member: MemberKey) -> bool:
        """Whether a member has a part. Does not count as a use."""
        return member in self._held

    @property
    def num_empty_slots(self) -> int:
        """Slots in which no member has a part."""
        return len(self._empty)

    @property
    def num_units(self) -> int:
        """Units of all slots."""
        return self.num_slots * self._slot_units

    def size_for(self, num_units: int) -> int:
        """The smallest size of a part with at least so many units."""
        return self._size_for[num_units]

    def has_room(self, parts_by_size: Mapping[int, int]) -> bool:
        """Whether so many parts of each size fit into all slots."""
        slots = (-(-num // (self._slot_units // size)) for size, num in parts_by_size.items())
        return sum(slots) <= self.num_slots

    def look_up(self, members: Iterable[MemberKey]) -> list[Part | None]:
        """The parts of the members of one pass; None for a member without one.

        These members, and those who are given a part after this call, are not evicted before the next call. So a pass must not
        have more members than there are slots; then all of them get parts, whatever sizes they need.
        """
        self._uses_before = self._uses
        found = []
        for member in members:
            part = self._held.get(member)
            if part is not None:
                self._use(member, part)
            found.append(part)
        return found

    def peek(self, member: MemberKey) -> Part | None:
        """A member's part. Does not count as a use."""
        return self._held.get(member)

    def allocate(self, member: MemberKey, num_units: int = 1) -> Part:
        """Gives a member who has no part an empty one of at least ``num_units``. Evicts others if none is free."""
        size = self._size_for[num_units]
        return self._give(member, Part(self._take(size), size))

    def enlarge(self, member: MemberKey, num_units: int) -> Part:
        """Gives a member a part of at least ``num_units`` in place of a smaller one. The new part has the old one's description.

        The caller then copies the cached plays, before it allocates anything else: until then nothing overwrites them. The new
        part may overlap the old one.
        """
        old, size = self._held[member], self._size_for[num_units]
        self.release(member)
        return self._give(member, replace(old, first_unit=self._take(size), num_units=size))

    def release(self, member: MemberKey) -> None:
        """Frees a member's part, if the member has one."""
        part = self._held.pop(member, None)
        if part is None:
            return
        del self._by_size[part.num_units][member]
        number = part.first_unit // self._slot_units
        slot = self._slots[number]
        slot.members.remove(member)
        if slot.members:
            slot.free.append(part.first_unit)
            self._open[part.num_units][number] = slot
        else:
            self._close(number)

    def members(self) -> list[MemberKey]:
        """Members that have a part, most recently used first."""
        return list(reversed(self._held))

    def _give(self, member: MemberKey, part: Part) -> Part:
        """Records that a part belongs to a member from now on."""
        self._held[member] = self._by_size[part.num_units][member] = part
        self._slots[part.first_unit // self._slot_units].members.add(member)
        self._use(member, part)
        return part

    def _use(self, member: MemberKey, part: Part) -> None:
        self._uses += 1
        part.used = self._uses
        self._held.move_to_end(member)
        self._by_size[part.num_units].move_to_end(member)
        self._slots.move_to_end(part.first_unit // self._slot_units)

    def _take(self, size: int) -> int:
        """Takes a free part of this size and returns its first unit. Evicts members if no part is free."""
        if not self._open[size] and not self._empty:
            self._evict(size)
        if not self._open[size]:
            number = self._empty.pop()
            first = number * self._slot_units
            num_parts = self._slot_units // size
            free = [first + nth * size for nth in range(num_parts - 1, -1, -1)]
            self._open[size][number] = self._slots[number] = _Slot(size, free, set())
        number, slot = next(iter(self._open[size].items()))
        first_unit = slot.free.pop()
        if not slot.free:
            del self._open[size][number]
        return first_unit

    def _evict(self, size: int) -> None:
        """Evicts members so that a part of this size is free."""
        evicted, used = self._slot_to_evict()
        if self._by_size[size]:
            oldest, part = next(iter(self._by_size[size].items()))
            if part.used <= used:
                evicted = [oldest]
        for member in evicted:
            self.release(member)
        self.num_evictions += len(evicted)

    def _slot_to_evict(self) -> tuple[list[MemberKey], int]:
        """Finds the slot that was used longest ago, among those without a member of the current pass. Returns the members of
        that slot and the number of their latest use.
        """
        for slot in self._slots.values():
            used = max(self._held[member].used for member in slot.members)
            if used <= self._uses_before:
                return list(slot.members), used
        raise AssertionError("more members were looked up together than there are slots")

    def _close(self, number: int) -> None:
        """Returns a slot without members to the empty ones. It may be divided into other parts next time."""
        slot = self._slots.pop(number)
        self._open[slot.num_units].pop(number, None)
        self._empty.append(number)
