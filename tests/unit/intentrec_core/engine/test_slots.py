"""Which member has which part of the memory: no two share a unit, and the least recently used are evicted."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine.slots import SlotAllocator, part_sizes

SIZES = [1, 2, 3, 7, 12, 16, 21]
USERS = [f"user-{nth}" for nth in range(40)]
#: A member, how many units its context needs, and whether it is released.
uses = st.lists(st.tuples(st.sampled_from(USERS), st.integers(1, 21), st.booleans()), max_size=120)


def use_together(slots: SlotAllocator, needed: Mapping[str, int]) -> None:
    """As the engine does in a pass: all parts are looked up, then each is kept, enlarged or allocated."""
    found = slots.look_up(needed)
    given = {}
    for (member, num_units), part in zip(needed.items(), found, strict=True):
        if part is None:
            given[member] = slots.allocate(member, num_units)
        elif part.num_units < num_units:
            given[member] = slots.enlarge(member, num_units)
        else:
            given[member] = part
        assert given[member].num_units >= num_units
    assert {member: slots.peek(member) for member in needed} == given, "none of them was evicted for another"


def use(slots: SlotAllocator, member: str, num_units: int) -> None:
    use_together(slots, {member: num_units})


def units_of_each(slots: SlotAllocator) -> dict[str, range]:
    parts = {member: slots.peek(member) for member in slots.members()}
    return {m: range(part.first_unit, part.first_unit + part.num_units) for m, part in parts.items()}


@pytest.mark.parametrize(
    ("slot_units", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (7, [1, 2, 3, 7]),
        (12, [1, 2, 3, 4, 6, 12]),
        (16, [1, 2, 3, 4, 5, 8, 16]),
        (21, [1, 2, 3, 4, 5, 7, 10, 21]),
    ],
)
def test_a_slot_is_cut_into_equal_parts(slot_units: int, sizes: Sequence[int]) -> None:
    assert part_sizes(slot_units) == sizes
    allocator = SlotAllocator(3, slot_units)
    wanted = range(1, slot_units + 1)
    assert [allocator.size_for(num) for num in wanted] == [next(s for s in sizes if s >= num) for num in wanted]
    assert (allocator.num_units, allocator.num_empty_slots) == (3 * slot_units, 3)


#: Members who are used together and how many units each needs; or members who are released.
passes = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from(USERS[:14]), st.integers(1, 21), min_size=1, max_size=8),
        st.sets(st.sampled_from(USERS[:14]), max_size=3),
    ),
    max_size=40,
)


@given(num_slots=st.integers(1, 8), slot_units=st.sampled_from(SIZES), script=passes)
@settings(max_examples=400)
def test_no_unit_belongs_to_two_members_and_members_of_one_pass_keep_theirs(
    num_slots: int, slot_units: int, script: list[dict[str, int] | set[str]]
) -> None:
    slots, num_gone = SlotAllocator(num_slots, slot_units), 0
    for step in script:
        before = set(slots.members())
        if isinstance(step, set):
            for member in step:
                slots.release(member)
                assert member not in slots
        else:
            needed = {member: min(num, slot_units) for member, num in list(step.items())[:num_slots]}
            use_together(slots, needed)
            assert set(slots.members()[: len(needed)]) == set(needed), "the most recently used"
            num_gone += len(before - set(slots.members()))
        assert slots.num_evictions == num_gone
        taken = [unit for units in units_of_each(slots).values() for unit in units]
        assert len(set(taken)) == len(taken)
        assert set(taken) <= set(range(num_slots * slot_units))
        for units in units_of_each(slots).values():
            assert units[0] // slot_units == units[-1] // slot_units, "in one slot"
            assert units[0] % slot_units % len(units) == 0, "where parts of its size begin"
        in_use = {unit // slot_units for unit in taken}
        assert slots.num_empty_slots == num_slots - len(in_use)
        assert len(slots) == len(slots.members())


@given(num_slots=st.integers(1, 4), slot_units=st.sampled_from(SIZES), needed=st.lists(st.integers(1, 21), max_size=40))
def test_what_has_room_evicts_nobody(num_slots: int, slot_units: int, needed: list[int]) -> None:
    slots = SlotAllocator(num_slots, slot_units)
    held: Counter[int] = Counter()
    for nth, num_units in enumerate(needed):
        size = slots.size_for(min(num_units, slot_units))
        fits = slots.has_room(held + Counter([size]))
        slots.look_up([])
        slots.allocate(f"user-{nth}", size)
        assert (slots.num_evictions == 0) == fits
        if not fits:
            break
        held[size] += 1


@given(num_slots=st.integers(1, 6), script=uses)
def test_with_one_size_the_least_recently_used_member_is_evicted(
    num_slots: int, script: list[tuple[str, int, bool]]
) -> None:
    slots, expected = SlotAllocator(num_slots), OrderedDict[str, None]()
    num_evictions = 0
    for member, _, is_released in script:
        if is_released:
            slots.release(member)
            expected.pop(member, None)
        else:
            use(slots, member, 1)
            expected.pop(member, None)
            if len(expected) == num_slots:
                expected.popitem(last=False)
                num_evictions += 1
            expected[member] = None
        assert slots.members() == list(reversed(expected))
    assert slots.num_evictions == num_evictions


def test_short_contexts_share_a_slot_and_a_long_one_has_its_own() -> None:
    slots = SlotAllocator(2, 16)
    for nth in range(16):
        slots.allocate(f"short-{nth}", 1)
    assert (len(slots), slots.num_empty_slots, slots.num_evictions) == (16, 1, 0)
    slots.allocate("long", 9)
    assert (len(slots), slots.num_empty_slots, slots.num_evictions) == (17, 0, 0)


def test_five_contexts_of_four_units_share_a_slot_of_three_whole_ones_of_seven() -> None:
    of_one, of_three = SlotAllocator(3, 7), SlotAllocator(1, 21)
    assert (of_one.has_room({of_one.size_for(4): 3}), of_one.has_room({of_one.size_for(4): 4})) == (True, False)
    assert (of_three.has_room({of_three.size_for(4): 5}), of_three.has_room({of_three.size_for(4): 6})) == (True, False)
    for nth in range(5):
        of_three.allocate(f"user-{nth}", 4)
    assert (len(of_three), of_three.num_evictions) == (5, 0)


def test_a_larger_part_says_what_the_smaller_one_said_and_the_smaller_one_is_free() -> None:
    slots = SlotAllocator(3, 4)
    part = slots.allocate("ann", 1)
    part.anchor, part.length, part.tail, part.primary = 8, 32, b"tail", 3
    larger = slots.enlarge("ann", 2)
    assert (larger.anchor, larger.length, larger.tail, larger.primary) == (8, 32, b"tail", 3)
    assert larger.num_units == 2
    assert set(units_of_each(slots)) == {"ann"}
    assert slots.num_empty_slots == 2


def test_a_larger_part_of_the_only_member_of_a_slot_overlaps_the_smaller_one() -> None:
    slots = SlotAllocator(2, 4)
    slots.allocate("whole", 4)
    slots.allocate("ann", 1).length = 32
    larger = slots.enlarge("ann", 2)
    assert (larger.first_unit, larger.num_units, larger.length) == (4, 2, 32)
    assert sorted(slots.members()) == ["ann", "whole"]


def test_in_the_only_slot_the_others_are_evicted_for_a_larger_part() -> None:
    slots = SlotAllocator(1, 4)
    slots.allocate("ben", 1)
    slots.allocate("ann", 1).length = 32
    slots.look_up(["ann"])
    larger = slots.enlarge("ann", 2)
    assert (larger.first_unit, larger.num_units, larger.length) == (0, 2, 32)
    assert (slots.members(), slots.num_evictions) == (["ann"], 1)


def test_a_slot_that_a_member_of_the_pass_has_left_is_evicted_before_a_slot_with_one() -> None:
    """``kept`` stays where it is, and the slot that ``grown`` leaves is in front of it though its last use is newer."""
    slots = SlotAllocator(4, 4)
    use(slots, "x", 4)
    use(slots, "kept", 4)
    for member, num_units in (("grown", 1), ("q", 1), ("also grown", 2), ("p", 2)):
        use(slots, member, num_units)
    assert slots.num_empty_slots == 0
    use_together(slots, {"kept": 4, "grown": 4, "also grown": 4})


def test_a_member_of_the_wanted_size_is_evicted_before_a_slot_that_was_used_since() -> None:
    slots = SlotAllocator(2, 4)
    for nth in range(4):
        slots.allocate(f"short-{nth}", 1)
    slots.allocate("long", 4)
    slots.look_up(["short-3"])
    slots.look_up([])
    slots.allocate("new", 1)  # "long" was used before short-3, but after short-0
    assert sorted(slots.members()) == ["long", "new", "short-1", "short-2", "short-3"]
    slots.look_up([])
    slots.allocate("another long", 4)
    assert sorted(slots.members()) == ["another long", "new", "short-1", "short-2", "short-3"]


@pytest.mark.parametrize(("used", "stay"), [("half", ["half", "long"]), ("short-1", ["long", "short-0", "short-1"])])
def test_all_members_of_the_slot_that_was_used_longest_ago_are_evicted(used: str, stay: list[str]) -> None:
    slots = SlotAllocator(2, 4)
    for nth in range(2):
        slots.allocate(f"short-{nth}", 1)
    slots.allocate("half", 2)
    slots.look_up([used])
    slots.look_up([])
    slots.allocate("long", 4)
    assert sorted(slots.members()) == stay
    assert slots.num_evictions == 4 - len(stay)
