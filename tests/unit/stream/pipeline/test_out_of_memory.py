"""A device that runs out of memory, by an encoder that raises what torch raises."""

from __future__ import annotations

import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.encoder import StepOutput
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.engine.reference import recompute
from intentrec_core.errors import ConfigError, DeviceLost
from intentrec_core.features.columns import Columns
from intentrec_core.history.history import History
from intentrec_core.model.model import IntentRec
from tests.worlds.tiny_world import TinyWorld

WORLD = TinyWorld()
MODEL = WORLD.model(1)


class CrampedEncoder(TorchEncoder):
    """An encoder on a device with memory for a pass and a pool of ``max_slots``."""

    max_slots = 0
    made: ClassVar[list[weakref.ref[TorchEncoder]]]

    def __init__(self, model: IntentRec, pool_bytes: int) -> None:
        assert not [earlier for earlier in self.made if earlier() is not None], "two pools would need memory at once"
        super().__init__(model, pool_bytes)
        self.made.append(weakref.ref(self))

    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        if self.num_slots > self.max_slots:
            self.run_out()
        return super().encode(columns, units, wanted)

    def run_out(self) -> None:
        """As torch's allocator says it."""
        raise torch.OutOfMemoryError("CUDA out of memory")


class FailingCapture(CrampedEncoder):
    """Runs out of memory while it captures a graph, which then cannot be ended either."""

    def run_out(self) -> None:
        try:
            super().run_out()
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


class NoRoomForGraph(CrampedEncoder):
    """Runs out of memory that torch's allocator does not hand out."""

    def run_out(self) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")


def cramped(max_slots: int, kind: type[CrampedEncoder] = CrampedEncoder) -> IncrementalEngine:
    kind = type("Cramped", (kind,), {"max_slots": max_slots, "made": []})
    return WORLD.engine(MODEL, num_slots=64, make_encoder=kind)


def context(user: int, num: int) -> bytes:
    history = History()
    for i in range(num):
        history.apply(WORLD.layout, WORLD.play(user + i, f"{user}-{i}", 60.0 * i), i)
    return bytes(history.events)


@pytest.mark.parametrize("kind", [CrampedEncoder, FailingCapture, NoRoomForGraph])
def test_the_pool_shrinks_until_it_fits_and_every_member_is_answered(kind: type[CrampedEncoder]) -> None:
    engine = cramped(20, kind)
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


def test_the_count_of_evictions_continues_when_the_pool_shrinks() -> None:
    """The metric is a running count: a smaller one would be an error."""
    engine = cramped(max_slots=1000)
    engine.encode([EncodeRequest(f"user-{i}", 0, context(i, 3), 0) for i in range(10)])
    type(engine.encoder).max_slots = 20
    engine.encode([EncodeRequest("user-0", 0, context(0, 4), 3)])
    assert engine.num_evictions == 9  # all but the member of the call that failed, who is forgotten


def test_a_device_without_memory_for_one_member_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        cramped(max_slots=0).encode([EncodeRequest("ann", 0, context(1, 3), 0)])


def test_a_pool_that_does_not_fit_on_the_device_is_made_smaller() -> None:
    """A coming bundle's, beside the one that serves."""

    class TooLarge(TorchEncoder):
        def __init__(self, model: IntentRec, pool_bytes: int) -> None:
            super().__init__(model, pool_bytes)
            if self.num_slots > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")

    engine = WORLD.engine(MODEL, num_slots=64, make_encoder=TooLarge)
    assert 10 < engine.num_slots <= 20
    contexts = [context(user, 5) for user in range(30)]
    out = engine.encode([EncodeRequest(f"user-{i}", 0, c, 0) for i, c in enumerate(contexts)])
    np.testing.assert_allclose(out.item_NW, recompute(MODEL, WORLD.features, contexts).item_NW, atol=1e-4, rtol=0)


def test_a_device_without_memory_for_any_pool_is_an_error() -> None:
    def make(model: IntentRec, pool_bytes: int) -> TorchEncoder:
        TorchEncoder(model, pool_bytes)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ConfigError, match="one member needs"):
        WORLD.engine(MODEL, num_slots=64, make_encoder=make)


def test_a_device_whose_memory_is_gone_while_the_pool_shrinks_is_lost() -> None:
    class Outgrown(TorchEncoder):
        num_made = 0

        def __init__(self, model: IntentRec, pool_bytes: int) -> None:
            super().__init__(model, pool_bytes)
            type(self).num_made += 1
            if self.num_made > 1:  # another process has taken it meanwhile
                raise torch.OutOfMemoryError("CUDA out of memory")

        def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = WORLD.engine(MODEL, num_slots=64, make_encoder=Outgrown)
    with pytest.raises(DeviceLost, match="no memory left"):
        engine.encode([EncodeRequest("ann", 0, context(1, 3), 0)])
