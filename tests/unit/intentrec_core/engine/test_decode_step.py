"""The step that a CUDA graph repeats, without a device.

In the graph's place stands a recording of torch's: the operations of one run, with every number and shape that Python gave them
baked in. Whatever in a step is not read from its buffers, a repetition says wrong.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from intentrec_core.engine.cuda import encoder as torch_encoder
from intentrec_core.engine.cuda.decode_step import (
    BUCKETS,
    LARGEST_BUCKET,
    SMALLEST_BUCKET,
    Capture,
    DecodeStep,
    bucket_of,
)
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.cuda.pooled_attend import attend_to_whole_slots
from intentrec_core.engine.encoder import StepOutput
from tests.bench.engine_world import EngineWorld, Member

#: What is added up is the same, in the same order: repeated or not, a step says the same bits but for other buckets' sums.
TOLERANCE = 1e-5
NUM_MEMBERS = 20


@pytest.fixture(scope="module")
def paper_size() -> EngineWorld:
    return EngineWorld(window=20)


class Recordings:
    """Captures steps as a CUDA graph does: what is repeated is operations, no Python."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.num += 1
        return make_fx(step)()


def encoder(world: EngineWorld, capture: Capture | None = None) -> TorchEncoder:
    made = TorchEncoder(world.model, 1 << 24)
    made.decode = DecodeStep(world.model, made.pool, attend_to_whole_slots, capture)
    return made


@torch.no_grad()
def encode_whole(made: TorchEncoder, world: EngineWorld, members: Sequence[Member]) -> None:
    columns = world.features.columns([member.request().context for member in members], [0] * len(members))
    made.encode(columns, slots(len(members)), np.ones(len(columns.item_row), dtype=bool))


@torch.no_grad()
def encode_newest(made: TorchEncoder, world: EngineWorld, contexts: Sequence[bytes]) -> StepOutput:
    columns = world.features.columns(contexts, [len(context) // world.layout.size - 1 for context in contexts])
    return made.encode(columns, slots(len(contexts)), np.ones(len(contexts), dtype=bool))


def slots(num: int) -> np.ndarray:
    """Those of members, not in their order; the spare one is none of them."""
    return (np.arange(num) * 7 + 3) % NUM_MEMBERS


def assert_same(one: StepOutput, other: StepOutput) -> None:
    for got, want in zip(one, other, strict=True):
        np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=0)


def test_a_repeated_step_says_what_the_model_says_of_other_plays(paper_size: EngineWorld) -> None:
    """Other members, contexts of other lengths, other buckets; only each bucket's first step runs Python."""
    recordings = Recordings()
    members = paper_size.members([3 + 2 * i % 17 for i in range(NUM_MEMBERS)])
    repeated, plain = encoder(paper_size, recordings), encoder(paper_size)
    for made in (repeated, plain):
        encode_whole(made, paper_size, members)
    for num in (NUM_MEMBERS, 5, NUM_MEMBERS, 1, 16, 17):
        contexts = [member.play().context for member in members[:num]]
        assert_same(*(encode_newest(made, paper_size, contexts) for made in (repeated, plain)))
    assert recordings.num == 2


class Watch(TorchDispatchMode):
    """Refuses what a graph cannot hold: a value asked of the device, a shape that depends on one, a copy from the host."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.index.Tensor:
            assert not any(index is not None and index.dtype is torch.bool for index in args[1])
        else:
            assert not {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(func.tags), func
        assert func is not torch.ops.aten.lift_fresh.default, "a copy from the host that waits"
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_nothing_and_its_shapes_are_those_of_its_bucket(paper_size: EngineWorld) -> None:
    with torch.inference_mode(), Watch():
        encoder(paper_size).decode._step(SMALLEST_BUCKET)


def test_what_fills_a_bucket_up_touches_nobody(paper_size: EngineWorld) -> None:
    members = paper_size.members([9] * NUM_MEMBERS)
    made = encoder(paper_size)
    encode_whole(made, paper_size, members)
    pool = made.pool
    before = [memory.clone() for memory in (pool.k_LNHCD, pool.v_LNHCD, pool.ts_NC)]
    encode_newest(made, paper_size, [members[0].play().context])
    written = int(slots(1)[0])
    for old, new, dim in zip(before, (pool.k_LNHCD, pool.v_LNHCD, pool.ts_NC), (1, 1, 0), strict=True):
        others = [slot for slot in range(pool.num_slots) if slot != written]
        assert torch.equal(*(memory.index_select(dim, torch.tensor(others)) for memory in (old, new)))
        assert not torch.equal(*(memory.select(dim, written) for memory in (old, new)))


def test_a_step_may_run_twice_on_the_same_plays(paper_size: EngineWorld) -> None:
    """As it does where it is captured: once before, to compile it."""
    members = paper_size.members([9] * NUM_MEMBERS)

    def twice(step: Callable[[], None]) -> Callable[[], None]:
        step()
        return step

    once_encoder, twice_encoder = encoder(paper_size), encoder(paper_size, twice)
    for made in (once_encoder, twice_encoder):
        encode_whole(made, paper_size, members)
    contexts = [member.play().context for member in members]
    assert_same(*(encode_newest(made, paper_size, contexts) for made in (once_encoder, twice_encoder)))


def test_more_plays_than_the_largest_bucket_go_in_several_steps(
    paper_size: EngineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = paper_size.members([9] * NUM_MEMBERS)
    whole, cut = encoder(paper_size), encoder(paper_size)
    for made in (whole, cut):
        encode_whole(made, paper_size, members)
    contexts = [member.play().context for member in members]
    expected = encode_newest(whole, paper_size, contexts)
    monkeypatch.setattr(torch_encoder, "LARGEST_BUCKET", 8)
    assert_same(encode_newest(cut, paper_size, contexts), expected)


def test_buckets_are_powers_of_two_within_bounds() -> None:
    assert [bucket_of(num) for num in (1, 16, 17, 32, 33, 4095, 4096)] == [16, 16, 32, 32, 64, 4096, 4096]
    assert {bucket_of(num) for num in range(1, LARGEST_BUCKET + 1)} == set(BUCKETS)


def test_what_is_captured_beforehand_is_not_captured_again_and_touches_nobody(paper_size: EngineWorld) -> None:
    captured: list[Callable[[], None]] = []

    def run_at_once(step: Callable[[], None]) -> Callable[[], None]:
        step()
        captured.append(step)
        return step

    made = TorchEncoder(paper_size.model, 1 << 24)
    pool = made.pool
    made.decode = DecodeStep(paper_size.model, pool, attend_to_whole_slots, run_at_once)
    made.decode.prepare()
    assert not pool.k_LNHCD[:, : pool.num_slots].any()
    assert pool.k_LNHCD[:, pool.spare_slot].any()
    encode_newest(made, paper_size, [member.play().context for member in paper_size.members([1] * NUM_MEMBERS)])
    assert len(captured) == len(BUCKETS)


def test_an_encoder_that_is_let_go_is_gone(paper_size: EngineWorld) -> None:
    """By counting references: its memory must be free before a smaller pool is taken."""
    made = encoder(paper_size)
    encode_whole(made, paper_size, paper_size.members([1, 2]))
    pool = weakref.ref(made.pool)
    del made
    assert pool() is None
