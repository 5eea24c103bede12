"""A device that runs out of memory, by an encoder that raises what torch raises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intentrec_core.columns import Columns
from intentrec_core.encoder import StepOutput
from intentrec_core.engine import EncodeRequest, IncrementalEngine
from intentrec_core.history import History
from intentrec_core.model import IntentRec
from intentrec_core.reference import recompute
from intentrec_core.torch_encoder import TorchEncoder
from tests.worlds import TinyWorld

WORLD = TinyWorld()
MODEL = WORLD.model(1)


class CrampedEncoder(TorchEncoder):
    """On a device with room for a pool of ``max_slots`` beside what a pass takes."""

    max_slots = 0

    def __init__(self, model: IntentRec, pool_bytes: int) -> None:
        super().__init__(model, pool_bytes)
        self.num_calls = 0

    def encode(self, columns: Columns, slots: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        self.num_calls += 1
        if self.num_slots > self.max_slots:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode(columns, slots, wanted)


def cramped(max_slots: int) -> IncrementalEngine:
    kind = type("Cramped", (CrampedEncoder,), {"max_slots": max_slots})
    return WORLD.engine(MODEL, num_slots=64, make_encoder=kind)


def context(user: int, num: int) -> bytes:
    history = History()
    for i in range(num):
        history.apply(WORLD.layout, WORLD.play(user + i, f"{user}-{i}", 60.0 * i), i)
    return bytes(history.events)


def test_the_pool_shrinks_until_it_fits_and_every_member_is_answered() -> None:
    engine = cramped(max_slots=20)
    before = engine.num_slots
    assert before > 40
    contexts = [context(user, 5) for user in range(30)]
    out = engine.encode([EncodeRequest(f"user-{i}", 0, c, 0) for i, c in enumerate(contexts)])
    np.testing.assert_allclose(out.item_NW, recompute(MODEL, WORLD.features, contexts).item_NW, atol=1e-4, rtol=0)
    assert 1 < engine.num_slots <= 20
    longer = context(29, 6)
    again = engine.encode([EncodeRequest("user-29", 0, longer, 5)])
    np.testing.assert_allclose(again.item_NW, recompute(MODEL, WORLD.features, [longer]).item_NW, atol=1e-4, rtol=0)
    assert engine.stats.hits == 1


def test_evictions_are_counted_on_when_the_pool_shrinks() -> None:
    """The metric is a running count: a smaller one would be an error."""
    engine = cramped(max_slots=1000)
    engine.encode([EncodeRequest(f"user-{i}", 0, context(i, 3), 0) for i in range(10)])
    type(engine.encoder).max_slots = 20
    engine.encode([EncodeRequest("user-0", 0, context(0, 4), 3)])
    assert engine.num_evictions == 9  # all but the member of the call that failed, who is forgotten


def test_a_device_without_room_for_one_member_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        cramped(max_slots=0).encode([EncodeRequest("ann", 0, context(1, 3), 0)])
