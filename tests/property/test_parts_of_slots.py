"""Contexts of all lengths in one pool: members whose parts grow, move and are lost are answered as if nothing were cached.

The contexts of :mod:`tests.property.test_incremental_equals_full` fit into one unit. Here they need up to four. A slot has room
for one whole context, and parts have three sizes; or for three, and parts of up to four units have four sizes. The pool has one
to six slots for nine members.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine.cpu.encoder import CpuEncoder, context_bytes
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.history.history import History
from tests.worlds.tiny_world import TinyWorld

#: A context has up to 112 plays, which are 3.5 units of 32.
WORLD = TinyWorld(window=56)
MODEL = WORLD.model(1)
USERS = ["ann", "ben", "cho", "dee", "eve", "fay", "gus", "hal", "ivy"]
#: A micro-batch: members with how many plays each has in it.
batches = st.lists(
    st.dictionaries(st.sampled_from(USERS), st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=14
)


def engine_of(num_slots: int, kv_dtype: KvDtype, slot_contexts: int = 1) -> IncrementalEngine:
    kind = partial(CpuEncoder, MODEL.weights(), kv_dtype=kv_dtype, slot_contexts=slot_contexts)
    pool_bytes = num_slots * slot_contexts * context_bytes(MODEL, kv_dtype)
    return IncrementalEngine(MODEL.weights(), WORLD.features, pool_bytes=pool_bytes, version="b0", make_encoder=kind)


@pytest.mark.parametrize("slot_contexts", [1, 3])
@pytest.mark.parametrize("kv_dtype", KvDtype)
@given(num_slots=st.integers(1, 6), script=batches)
@settings(deadline=None)
def test_a_context_in_any_part_is_answered_as_one_that_is_encoded_anew(
    kv_dtype: KvDtype, slot_contexts: int, num_slots: int, script: list[dict[str, int]]
) -> None:
    engine, histories = engine_of(num_slots, kv_dtype, slot_contexts), {user: History() for user in USERS}
    assert (engine.num_slots, engine.encoder.slot_units) == (num_slots, 4 * slot_contexts)
    number = 0
    for batch in script:
        requests = []
        for user, num in batch.items():
            history = histories[user]
            for _ in range(num):
                number += 1
                history.apply(WORLD.layout, WORLD.play(number % 33, number, 600.0 * number), number)
            held = history.num_events(WORLD.layout)
            anchor = history.anchor(WORLD.layout)
            requests.append(EncodeRequest(user, anchor, history.events, max(0, held - num)))
        got = engine.encode(requests)
        anew = engine_of(len(requests), kv_dtype).encode(requests)
        np.testing.assert_allclose(got.item_NW, anew.item_NW, atol=1e-5, rtol=0)
        for head, expected in zip(got.heads, anew.heads, strict=True):
            np.testing.assert_allclose(head, expected, atol=1e-5, rtol=0)
        assert got.primary_N.tolist() == anew.primary_N.tolist()
        assert got.previous_primary_N.tolist() == anew.previous_primary_N.tolist()


@pytest.mark.parametrize(("slot_contexts", "after_64"), [(1, 4), (3, 3)])
@pytest.mark.parametrize("kv_dtype", KvDtype)
def test_a_growing_context_is_moved_and_not_encoded_again(kv_dtype: KvDtype, slot_contexts: int, after_64: int) -> None:
    engine, history = engine_of(3, kv_dtype, slot_contexts), History()
    sizes = []
    for number in range(112):
        history.apply(WORLD.layout, WORLD.play(number % 33, number, 600.0 * number), number)
        engine.encode([EncodeRequest("ann", 0, history.events, number)])
        part = engine._slots.peek("ann")
        sizes.append(part.num_units)
    assert (engine.stats.misses, engine.stats.positions, engine.num_evictions) == (1, 112, 0)
    assert sizes == [1] * 32 + [2] * 32 + [after_64] * 32 + [4] * 16


def test_twice_as_many_short_contexts_fit_as_long_ones() -> None:
    engine = engine_of(2, KvDtype.FLOAT32)
    encode_each(engine, num_members=4, num_plays=60)
    assert (engine.num_cached, engine.num_slots, engine.num_evictions) == (4, 2, 0)
    assert (engine.num_contexts, engine.num_contexts_in_use) == (2, 2)


def test_a_slot_of_three_contexts_holds_four_of_three_quarters_and_slots_in_use_count_three_times() -> None:
    engine = engine_of(2, KvDtype.FLOAT32, 3)
    assert (engine.num_contexts, engine.num_contexts_in_use) == (6, 0)
    encode_each(engine, num_members=4, num_plays=80)
    assert (engine.num_cached, engine.num_contexts_in_use) == (4, 3)
    encode_each(engine, num_members=8, num_plays=80)
    assert (engine.num_cached, engine.num_contexts_in_use, engine.num_evictions) == (8, 6, 0)


def encode_each(engine: IncrementalEngine, num_members: int, num_plays: int) -> None:
    """Members with so many plays each, in one pass after another."""
    history = History()
    for number in range(num_plays):
        history.apply(WORLD.layout, WORLD.play(number % 33, number, 600.0 * number), number)
    for user in USERS[:num_members]:
        engine.encode([EncodeRequest(user, 0, history.events, 0)])
