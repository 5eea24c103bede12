"""Keys and values in int8 at the paper's size: what is cached, and what is said, beside full recomputation and beside float32.

Against a recomputation over the cache's codes the tolerance is that of float32. A recomputation that goes on with its own codes
differs by flipped quanta, and by what follows from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from intentrec_core.engine.cpu.encoder import CpuEncoder, context_bytes
from intentrec_core.engine.encoder import StepOutput
from intentrec_core.engine.engine import Encoded, EncodeRequest, IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.quantised import QuantisedAttend
from intentrec_core.engine.reference import recompute
from intentrec_core.errors import ConfigError
from tests.bench.engine_world import CONFIG, EngineWorld
from tests.parity.quantised_cache import (
    BesideTheCache,
    CachedCodes,
    Differences,
    OverTheCache,
    RecordingEncoder,
    attend_to,
    cached_codes,
)
from tests.worlds.tiny_world import TinyWorld

TOLERANCE = 1e-4
#: Of all codes; how many it is depends on how a processor rounds.
FLIPPED = 1e-3
#: Beside float32: two to three times what random weights show. Item vectors are up to 4.3.
ITEM_BOUND, PROBABILITY_BOUND = 0.02, 0.002
COUNTS = [1, 2, 31, 32, 33, 64, 99, 77]
K = 10


@pytest.fixture(scope="module", params=[None, 2, 1], ids=lambda num: f"{num or 'all'} heads")
def world(request: pytest.FixtureRequest) -> EngineWorld:
    return EngineWorld(50, dataclasses.replace(CONFIG, num_kv_heads=request.param))


@pytest.fixture(scope="module", params=["whole", "one by one", "in pieces"])
def played(request: pytest.FixtureRequest, world: EngineWorld) -> tuple[StepOutput, RecordingEncoder, list[bytes]]:
    """Contexts in the cache, and the output at the newest play of each."""
    steps = {"whole": 100, "one by one": 1, "in pieces": 7}[request.param]
    contexts = [member.request().context for member in world.members(COUNTS)]
    encoder = RecordingEncoder(
        world.model.weights(), len(COUNTS) * context_bytes(world.model, KvDtype.INT8), num_threads=3
    )
    size, last = world.layout.size, list[StepOutput]([None] * len(COUNTS))
    for start in range(0, max(COUNTS), steps):
        of = [nth for nth, count in enumerate(COUNTS) if count > start]
        given = world.features.columns([contexts[nth][: (start + steps) * size] for nth in of], [start] * len(of))
        with torch.inference_mode():
            output = encoder.encode(given, np.array(of) * encoder.slot_units, np.ones(len(given.item_row), dtype=bool))
        for nth, end in zip(of, np.cumsum(given.lengths).tolist(), strict=True):
            last[nth] = StepOutput(*(part[end - 1 : end].copy() for part in output))
    return StepOutput(*(np.concatenate(parts) for parts in zip(*last, strict=True))), encoder, contexts


def compare(output: StepOutput, nth: int, expected: Encoded) -> None:
    probs = np.concatenate(expected.heads, axis=1)
    pairs = zip(output[:4], (expected.item_NW, probs, expected.intent_NP, expected.alpha_NM), strict=True)
    for got, want in pairs:
        np.testing.assert_allclose(got[nth], want[0], atol=TOLERANCE, rtol=0)


def check(world: EngineWorld, output: StepOutput, nth: int, context: bytes, codes: CachedCodes) -> Differences:
    """One context against a recomputation over its codes. Raises: AssertionError for all that is no flipped quantum."""
    found = Differences()
    compare(output, nth, recompute(world.model, world.features, [context], attend_to(OverTheCache, codes, found)))
    assert found.largest <= 1
    assert found.num_different <= max(2, FLIPPED * found.num_places)
    return found


def test_every_play_equals_a_recomputation_over_the_same_codes(
    world: EngineWorld, played: tuple[StepOutput, RecordingEncoder, list[bytes]]
) -> None:
    output, encoder, contexts = played
    found = [
        check(world, output, nth, context, cached_codes(encoder, nth * encoder.slot_units, COUNTS[nth]))
        for nth, context in enumerate(contexts)
    ]
    assert sum(f.num_places for f in found) == 5 * 2 * world.config.cached_width * sum(COUNTS)
    assert sum(f.num_different for f in found) <= FLIPPED * sum(f.num_places for f in found)


def test_codes_of_a_full_recomputation_differ_by_one_in_few_places(
    world: EngineWorld, played: tuple[StepOutput, RecordingEncoder, list[bytes]]
) -> None:
    """With nothing taken from the cache: a flipped quantum of one layer moves the next one."""
    _, encoder, contexts = played
    found = Differences()
    for nth, context in enumerate(contexts):
        codes = cached_codes(encoder, nth * encoder.slot_units, COUNTS[nth])
        recompute(world.model, world.features, [context], attend_to(BesideTheCache, codes, found))
    assert found.largest <= 1
    assert found.share < FLIPPED


def _wrong_slot(codes: CachedCodes, other: CachedCodes) -> CachedCodes:
    return dataclasses.replace(codes, k=_with(codes.k, 20, other.k[:, 20]))


def _next_play(codes: CachedCodes, other: CachedCodes) -> CachedCodes:
    return dataclasses.replace(codes, v=_with(codes.v, 20, codes.v[:, 21]))


def _next_scale(codes: CachedCodes, other: CachedCodes) -> CachedCodes:
    return dataclasses.replace(codes, k_scales=_with(codes.k_scales, 20, codes.k_scales[:, 21]))


def _with(part: np.ndarray, place: int, of_place: np.ndarray) -> np.ndarray:
    changed = part.copy()
    changed[:, place] = of_place
    return changed


@pytest.mark.parametrize("mistake", [_wrong_slot, _next_play, _next_scale])
def test_one_play_in_the_wrong_place_is_no_flipped_quantum(
    world: EngineWorld,
    played: tuple[StepOutput, RecordingEncoder, list[bytes]],
    mistake: Callable[[CachedCodes, CachedCodes], CachedCodes],
) -> None:
    output, encoder, contexts = played
    nth, other = COUNTS.index(99), COUNTS.index(77)
    codes = cached_codes(encoder, nth * encoder.slot_units, COUNTS[nth])
    check(world, output, nth, contexts[nth], codes)
    wrong = mistake(codes, cached_codes(encoder, other * encoder.slot_units, COUNTS[other]))
    with pytest.raises(AssertionError):
        check(world, output, nth, contexts[nth], wrong)


def test_what_is_said_differs_little_from_float32(world: EngineWorld) -> None:
    given = world.features.columns([member.request().context for member in world.members(COUNTS)], [0] * len(COUNTS))
    outputs = []
    for kv_dtype in KvDtype:
        encoder = CpuEncoder(world.model.weights(), 1 << 26, kv_dtype)
        with torch.inference_mode():
            outputs.append(
                encoder.encode(
                    given, np.arange(len(COUNTS)) * encoder.slot_units, np.ones(len(given.item_row), dtype=bool)
                )
            )
    plain, quantised = outputs
    for got, want, bound in zip(quantised[:2], plain[:2], (ITEM_BOUND, PROBABILITY_BOUND), strict=True):
        assert 0 < np.abs(got - want).max() <= bound
    weights, bias = (tensor.detach().numpy() for tensor in world.model.item_weights())
    lists = [np.argsort(-(output.item @ weights.T + bias), axis=1)[:, :K] for output in outputs]
    overlap = np.mean([len(np.intersect1d(*pair)) / K for pair in zip(*lists, strict=True)])
    assert overlap >= 0.98


def test_the_reference_quantises_as_the_step_does(world: EngineWorld) -> None:
    """Not over the cache's codes: short contexts, in which no quantum flips."""
    contexts = [member.request().context for member in world.members([1, 2, 3])]
    engine = IncrementalEngine(
        world.model.weights(), world.features, pool_bytes=1 << 24, version="b0", kv_dtype=KvDtype.INT8
    )
    got = engine.encode([EncodeRequest(f"user-{nth}", 0, context, 0) for nth, context in enumerate(contexts)])
    expected = recompute(world.model, world.features, contexts, QuantisedAttend)
    np.testing.assert_allclose(got.item_NW, expected.item_NW, atol=TOLERANCE, rtol=0)
    assert np.abs(expected.item_NW - recompute(world.model, world.features, contexts).item_NW).max() > TOLERANCE


def test_the_same_memory_holds_three_and_a_half_times_the_members(world: EngineWorld) -> None:
    """Of 32 numbers in a head: 128 bytes in float32; 32 and a scale, 36 bytes, in int8. A time takes 6 bytes in both."""
    heads = world.config.num_cached_heads
    sizes = {kv_dtype: context_bytes(world.model, kv_dtype) for kv_dtype in KvDtype}
    plays = 128  # 100, in groups of 32
    assert sizes[KvDtype.FLOAT32] == plays * (5 * heads * 2 * 32 * 4 + 6)
    assert sizes[KvDtype.INT8] == plays * (5 * heads * 2 * (32 + 4) + 6)
    budget = 64 * sizes[KvDtype.FLOAT32]
    held = {kv_dtype: CpuEncoder(world.model.weights(), budget, kv_dtype).num_slots for kv_dtype in KvDtype}
    assert held == {KvDtype.FLOAT32: 64, KvDtype.INT8: budget // sizes[KvDtype.INT8]}
    assert held[KvDtype.INT8] > (3.5 if heads == 4 else 3.4) * 64


@pytest.mark.parametrize("num_kv_heads", [None, 1])
@pytest.mark.parametrize("kv_dtype", KvDtype)
def test_a_slot_takes_the_memory_it_is_accounted_for(kv_dtype: KvDtype, num_kv_heads: int | None) -> None:
    model = TinyWorld().model(num_kv_heads=num_kv_heads)
    encoder = CpuEncoder(model.weights(), 5 * context_bytes(model, kv_dtype), kv_dtype)
    cache = encoder._cache
    held = sum(array.nbytes for array in cache[:-1])
    assert held == encoder.num_slots * context_bytes(model, kv_dtype) == 5 * context_bytes(model, kv_dtype)


def test_another_device_than_the_cpu_refuses_int8() -> None:
    tiny = TinyWorld()
    with pytest.raises(ConfigError, match="kv_dtype is int8 and the device meta; allowed: int8 on the CPU"):
        IncrementalEngine(
            tiny.model().weights(),
            tiny.features,
            pool_bytes=1 << 20,
            version="b0",
            device="meta",
            kv_dtype=KvDtype.INT8,
        )


@pytest.mark.parametrize("name", ["float16", "INT8", ""])
def test_a_type_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"kv_dtype is '{name}'; allowed: float32, int8"):
        KvDtype.parse(name)
