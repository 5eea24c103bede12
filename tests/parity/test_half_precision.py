"""Keys and values in half precision against float32: outputs differ only by the rounding.

Bounds are those that :mod:`intentrec_core.engine.cuda.encoder` states: three to seven times what a trained model
showed. Each member's
context is encoded in part and then played on, so that what is read back has been rounded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.cuda.kv_pool import KvPool, slot_bytes
from intentrec_core.engine.encoder import StepOutput
from tests.bench.engine_world import CONFIG, EngineWorld

#: By dtype: item vectors, probabilities.
BOUNDS = {torch.float16: (1e-3, 2e-4), torch.bfloat16: (8e-3, 1.6e-3)}
COUNTS = [1, 2, 20, 31, 47, 60, 77, 90]
NUM_STEPS = 6
K = 10


@pytest.fixture(scope="module")
def world() -> EngineWorld:
    return EngineWorld(window=50)


def played_on(world: EngineWorld, dtype: torch.dtype) -> StepOutput:
    """What is said at the plays that follow, member by member."""
    members = world.members(COUNTS)
    encoder = TorchEncoder(world.model, len(members) * slot_bytes(world.model, dtype), dtype)
    slots, outputs = np.arange(len(members)), []
    with torch.inference_mode():
        whole = world.features.columns([member.request().context for member in members], [0] * len(members))
        encoder.encode(whole, slots, np.ones(len(whole.item_row), dtype=bool))
        for _ in range(NUM_STEPS):
            contexts = [member.play().context for member in members]
            newest = world.features.columns(contexts, [len(c) // world.layout.size - 1 for c in contexts])
            output = encoder.encode(newest, slots, np.ones(len(members), dtype=bool))
            outputs.append(StepOutput(*(part.copy() for part in output)))  # the encoder's, until its next call
    return StepOutput(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))


@pytest.fixture(scope="module")
def in_float32(world: EngineWorld) -> StepOutput:
    return played_on(world, torch.float32)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_a_pool_in_half_precision_says_the_same_within_its_bounds(
    world: EngineWorld, in_float32: StepOutput, dtype: torch.dtype
) -> None:
    found = played_on(world, dtype)
    for got, want, bound in zip(found[:2], in_float32[:2], BOUNDS[dtype], strict=True):
        difference = np.abs(got - want).max()
        assert 0 < difference <= bound
    weights, bias = (tensor.detach().numpy() for tensor in world.model.item_weights())
    lists = [np.argsort(-(output.item @ weights.T + bias), axis=1)[:, :K] for output in (found, in_float32)]
    overlap = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(*lists, strict=True)])
    assert overlap >= 0.99


@pytest.mark.parametrize("num_kv_heads", [None, 2, 1])
def test_a_pool_takes_the_memory_it_is_accounted_for_and_a_spare_slot(num_kv_heads: int | None) -> None:
    model = EngineWorld(50, replace(CONFIG, num_kv_heads=num_kv_heads)).model
    pool = KvPool(model, 3 * slot_bytes(model, torch.float16), torch.float16)
    assert pool.num_slots == 3
    assert pool.k_LNHCD.shape[2] == pool.v_LNHCD.shape[2] == (num_kv_heads or 4)
    held = sum(tensor.nbytes for tensor in (pool.k_LNHCD, pool.v_LNHCD, pool.ts_NC))
    assert held == 4 * slot_bytes(model, torch.float16)


def test_half_precision_holds_twice_the_members_but_for_their_times(world: EngineWorld) -> None:
    budget = 64 * slot_bytes(world.model, torch.float32)
    num_slots = [TorchEncoder(world.model, budget, dtype).num_slots for dtype in (torch.float32, *BOUNDS)]
    assert num_slots == [64, 127, 127]
