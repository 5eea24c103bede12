"""Faults in parts of slots: members who share memory, what a larger part takes along, and who is evicted."""

from __future__ import annotations

from functools import partial

from tests.mutants.mutant import one_edit

SLOTS, ENGINE = "intentrec_core/engine/slots.py", "intentrec_core/engine/engine.py"
ENCODER, STEP = "intentrec_core/engine/cpu/encoder.py", "intentrec_core/engine/cpu/step.py"
TEST_SLOTS, TEST_PARTS = "tests/unit/intentrec_core/engine/test_slots.py", "tests/property/test_parts_of_slots.py"
TEST_CONTEXTS = "tests/unit/intentrec_core/engine/test_slot_contexts.py"
TEST_METRICS = "tests/unit/stream/pipeline/test_pipeline.py::test_metrics_count_slots_as_whole_contexts"


fault = partial(one_edit, "slots")

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
        "members of one pass are evicted for each other",
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
        "an empty slot cannot be divided again",
        SLOTS,
        "        if slot.members:\n",
        "        if True:\n",
        TEST_SLOTS,
    ),
    fault(
        "a slot is evicted though a member with a part of the size was used earlier",
        SLOTS,
        "            if part.used <= used:\n",
        "            if False:\n",
        TEST_SLOTS,
    ),
    fault(
        "the most recently used slot is evicted",
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
    fault(
        "a small pool has slots of three contexts",
        ENCODER,
        "return SLOT_CONTEXTS if num_contexts >= SLOT_CONTEXTS * MIN_SLOTS else 1",
        "return min(SLOT_CONTEXTS, num_contexts)",
        TEST_CONTEXTS,
    ),
    fault(
        "a large pool has slots of one context",
        ENCODER,
        "return SLOT_CONTEXTS if num_contexts >= SLOT_CONTEXTS * MIN_SLOTS else 1",
        "return 1",
        TEST_CONTEXTS,
    ),
    fault(
        "a pool keeps fewer slots of three contexts than a micro-batch has plays",
        ENCODER,
        "num_contexts >= SLOT_CONTEXTS * MIN_SLOTS",
        "num_contexts >= MIN_SLOTS",
        TEST_CONTEXTS,
    ),
    fault(
        "a slot of three contexts has the units of one",
        ENCODER,
        "self.slot_contexts * units_of(context_size), GROUP",
        "units_of(context_size), GROUP",
        TEST_CONTEXTS,
    ),
    fault(
        "a pool smaller than the slot that is asked for has none",
        ENCODER,
        "return min(wanted, num_contexts)",
        "return wanted",
        TEST_CONTEXTS,
    ),
    fault(
        "a member is accounted for as in a slot of one context",
        ENCODER,
        "part_sizes(SLOT_CONTEXTS * units_of(model.domain.context_size))",
        "part_sizes(units_of(model.domain.context_size))",
        TEST_CONTEXTS,
    ),
    fault(
        "the metric of whole contexts counts slots",
        ENGINE,
        "return self.encoder.num_slots * self.encoder.slot_contexts",
        "return self.encoder.num_slots",
        TEST_METRICS,
    ),
    fault(
        "the metric of slots in use does not count whole contexts",
        ENGINE,
        "return (self.encoder.num_slots - self._slots.num_empty_slots) * self.encoder.slot_contexts",
        "return self.encoder.num_slots - self._slots.num_empty_slots",
        TEST_METRICS,
    ),
    fault(
        "a slot on a device is moved without its times",
        "intentrec_core/engine/cuda/kv_pool.py",
        "        self.ts_NC[to] = self.ts_NC[held].clone()\n",
        "",
        "tests/parity/test_encoders.py::test_plays_appended_to_what_was_moved_equal_the_whole",
    ),
)
