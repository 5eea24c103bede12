"""Contexts of all lengths in one pool: members whose parts grow, move and are lost are answered as if nothing were cached.

The contexts of :mod:`tests.property.test_incremental_equals_full` fit into one unit. Here they need up to four, so parts have
three sizes, and the pool has one to six slots for nine members.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def engine_of(num_slots: int, kv_dtype: KvDtype) -> IncrementalEngine:
    return WORLD.engine(MODEL, num_slots=num_slots, kv_dtype=kv_dtype)


@pytest.mark.parametrize("kv_dtype", KvDtype)
@given(num_slots=st.integers(1, 6), script=batches)
@settings(deadline=None)
def test_a_context_in_any_part_is_answered_as_one_that_is_encoded_anew(
    kv_dtype: KvDtype, num_slots: int, script: list[dict[str, int]]
) -> None:
    engine, histories = engine_of(num_slots, kv_dtype), {user: History() for user in USERS}
    assert engine.encoder.slot_units == 4
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


@pytest.mark.parametrize("kv_dtype", KvDtype)
def test_a_growing_context_is_moved_and_not_encoded_again(kv_dtype: KvDtype) -> None:
    engine, history = engine_of(3, kv_dtype), History()
    sizes = []
    for number in range(112):
        history.apply(WORLD.layout, WORLD.play(number % 33, number, 600.0 * number), number)
        engine.encode([EncodeRequest("ann", 0, history.events, number)])
        part = engine._slots.peek("ann")
        sizes.append(part.num_units)
    assert (engine.stats.misses, engine.stats.positions, engine.num_evictions) == (1, 112, 0)
    assert sizes == [1] * 32 + [2] * 32 + [4] * 48


def test_twice_as_many_short_contexts_fit_as_long_ones() -> None:
    engine, history = engine_of(2, KvDtype.FLOAT32), History()
    for number in range(60):
        history.apply(WORLD.layout, WORLD.play(number % 33, number, 600.0 * number), number)
    requests = [EncodeRequest(user, 0, history.events, 0) for user in USERS[:4]]
    for request in requests:
        engine.encode([request])
    assert (engine.num_cached, engine.num_slots, engine.num_empty_slots, engine.num_evictions) == (4, 2, 0, 0)
