"""How many whole contexts a slot has room for, and what of the pool is left over."""

from __future__ import annotations

import pytest

from intentrec_core.engine.cpu.encoder import MIN_SLOTS, SLOT_CONTEXTS, CpuEncoder, context_bytes, member_bytes
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.errors import ConfigError
from stream.settings import Settings
from tests.worlds.tiny_world import TinyWorld

WORLD = TinyWorld()
MODEL = WORLD.model(1)
#: Contexts of up to 200 plays, as those of the domain `video`: seven units.
VIDEO = TinyWorld(window=100).model(1)


def encoder_of(num_contexts: int, slot_contexts: int | None = None) -> CpuEncoder:
    pool_bytes = (num_contexts + 1) * context_bytes(MODEL) - 1
    return CpuEncoder(MODEL.weights(), pool_bytes, slot_contexts=slot_contexts)


@pytest.mark.parametrize(
    ("num_contexts", "num_slots", "slot_contexts"),
    [(1, 1, 1), (767, 767, 1), (768, 256, 3), (770, 256, 3), (771, 257, 3)],
)
def test_a_slot_has_room_for_three_contexts_where_there_are_still_256_slots(
    num_contexts: int, num_slots: int, slot_contexts: int
) -> None:
    encoder = encoder_of(num_contexts)
    assert (encoder.num_slots, encoder.slot_contexts, encoder.slot_units) == (num_slots, slot_contexts, slot_contexts)
    assert encoder._cache.k.shape[1] == num_slots * encoder.slot_units


def test_a_micro_batch_has_no_more_plays_than_there_are_slots_of_three_contexts() -> None:
    assert Settings.load().max_batch <= MIN_SLOTS


@pytest.mark.parametrize(
    ("num_contexts", "wanted", "num_slots", "slot_contexts"),
    [(7, 3, 2, 3), (7, 1, 7, 1), (2, 3, 1, 2), (800, 1, 800, 1)],
)
def test_what_is_asked_for_holds_in_any_pool_that_has_room_for_it(
    num_contexts: int, wanted: int, num_slots: int, slot_contexts: int
) -> None:
    encoder = encoder_of(num_contexts, wanted)
    assert (encoder.num_slots, encoder.slot_contexts, encoder.slot_units) == (num_slots, slot_contexts, slot_contexts)


@pytest.mark.parametrize("wanted", [None, 3])
def test_a_pool_without_room_for_one_context_is_refused(wanted: int | None) -> None:
    with pytest.raises(ConfigError, match="one member needs"):
        encoder_of(0, wanted)


def test_a_slot_on_a_device_has_room_for_one_context() -> None:
    encoder = TorchEncoder(MODEL, 800 * context_bytes(MODEL))
    assert (encoder.slot_contexts, encoder.slot_units) == (1, 1)
    assert encoder.num_slots > MIN_SLOTS * SLOT_CONTEXTS


def test_a_member_takes_the_memory_of_a_part_of_a_slot_of_three_contexts() -> None:
    unit_bytes = context_bytes(VIDEO) // 7
    units = {
        num_plays: member_bytes(VIDEO, num_plays) // unit_bytes for num_plays in (1, 32, 96, 97, 129, 160, 161, 200)
    }
    assert units == {1: 1, 32: 1, 96: 3, 97: 4, 129: 5, 160: 5, 161: 7, 200: 7}
