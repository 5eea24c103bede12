"""Faults in parts of slots: members who share memory, what a larger part takes along, and who makes room."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

SLOTS, ENGINE = "intentrec_core/engine/slots.py", "intentrec_core/engine/engine.py"
ENCODER, STEP = "intentrec_core/engine/cpu/encoder.py", "intentrec_core/engine/cpu/step.py"
TEST_SLOTS, TEST_PARTS = "tests/unit/intentrec_core/engine/test_slots.py", "tests/property/test_parts_of_slots.py"


def fault(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A fault in one place of one file."""
    return Mutant(f"slots: {name}", (Edit(file, old, new),), tests)


SLOT_PARTS = (
    fault(
        "a context goes on where its part ends",
        ENGINE,
        "start and part.num_units < num_units:",
        "False:",
        TEST_PARTS,
    ),
    fault("a larger part without its keys", ENCODER, "        cache.k[:, free] = cache.k[:, held]\n", "", TEST_PARTS),
    fault("a larger part without its values", ENCODER, "        cache.v[:, free] = cache.v[:, held]\n", "", TEST_PARTS),
    fault(
        "a larger part without its scales",
        ENCODER,
        "                scales[:, :, free] = scales[:, :, held]\n",
        "                pass\n",
        TEST_PARTS,
    ),
    fault(
        "a larger part without its times",
        ENCODER,
        "            times[free] = times[held]\n",
        "            pass\n",
        TEST_PARTS,
    ),
    fault(
        "a larger part takes too few plays along",
        ENGINE,
        "part.first_unit, -(-start // unit_plays))",
        "part.first_unit, start // unit_plays)",
        TEST_PARTS,
    ),
    fault(
        "a growing context is encoded again",
        ENGINE,
        "            if part is None or start == 0:\n",
        "            if part is None or start == 0 or part.num_units > 1:\n",
        TEST_PARTS,
    ),
    fault(
        "members of one pass make room for each other",
        SLOTS,
        "            if used <= self._uses_before:\n",
        "            if True:\n",
        TEST_SLOTS,
        TEST_PARTS,
    ),
    fault(
        "a context that migrates in pieces takes parts of all sizes on its way",
        "stream/pipeline/migration.py",
        ", num_coming=num_plays - num)",
        ")",
        "tests/unit/stream/pipeline/test_migration.py",
    ),
    fault(
        "a migration takes a slot for as many members as it has units",
        SLOTS,
        "return sum(slots) <= self.num_slots",
        "return sum(num * size for size, num in parts_by_size.items()) <= self.num_units",
        TEST_SLOTS,
        "tests/unit/stream/pipeline/test_migration.py",
    ),
    fault(
        "the scales of the first unit are read for every part",
        STEP,
        "k_scales_KP, v_scales_KP, mine * GROUP, first[i]",
        "k_scales_KP, v_scales_KP, 0, first[i]",
        TEST_PARTS,
    ),
    fault(
        "a smaller part stays taken",
        SLOTS,
        "        self.release(member)\n        return self._give(member, replace(",
        "        return self._give(member, replace(",
        TEST_SLOTS,
    ),
    fault(
        "a slot of which all parts are free is not cut anew",
        SLOTS,
        "        if slot.members:\n",
        "        if True:\n",
        TEST_SLOTS,
    ),
    fault(
        "whole slots make room though an older member has a part of the size",
        SLOTS,
        "            if part.used <= used:\n",
        "            if False:\n",
        TEST_SLOTS,
    ),
    fault(
        "the most recently used slot makes room",
        SLOTS,
        "        for slot in self._slots.values():\n",
        "        for slot in reversed(self._slots.values()):\n",
        TEST_SLOTS,
    ),
    fault(
        "a use of a part is not one of its slot",
        SLOTS,
        "        self._slots.move_to_end(part.first_unit // self._slot_units)\n",
        "",
        TEST_SLOTS,
    ),
)
