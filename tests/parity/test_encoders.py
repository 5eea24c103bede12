"""The compiled step against the model it must equal: a model of the paper's size, ragged contexts, several threads.

Tolerance: 1e-4 absolute in float32, as everywhere; sums over 100 plays and 400 columns in another order come to 1e-5.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from intentrec_core.engine.cpu import encoder as cpu_encoder
from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.encoder import Encoder, StepOutput
from intentrec_core.engine.reference import recompute
from intentrec_core.features.columns import Columns
from intentrec_core.kernels import dense as kernels
from tests.bench.engine_world import CONFIG, EngineWorld
from tests.worlds.networks import encoder_of

TOLERANCE = 1e-4
WINDOW = 50
COUNTS = [1, 2, 31, 32, 33, 64, 100, 77]


@pytest.fixture(scope="module")
def paper_size() -> EngineWorld:
    return EngineWorld(WINDOW)


@pytest.fixture(scope="module", params=[None, 2, 1], ids=lambda num: f"{num or 'all'} heads")
def of_heads(request: pytest.FixtureRequest) -> EngineWorld:
    """All heads have keys and values of their own, every two share them, or all do."""
    return EngineWorld(WINDOW, replace(CONFIG, num_kv_heads=request.param))


def columns(world: EngineWorld, starts: list[int]) -> Columns:
    contexts = [member.request().context for member in world.members(COUNTS)]
    return world.features.columns(contexts, starts)


def encode(encoder: Encoder, given: Columns, *, wanted: np.ndarray | None = None) -> StepOutput:
    everything = np.ones(len(given.item_row), dtype=bool)
    units = np.arange(len(given.lengths))[::-1] * encoder.slot_units
    with torch.inference_mode():
        return encoder.encode(given, units, everything if wanted is None else wanted)


def assert_close(actual: StepOutput, expected: StepOutput, rows: np.ndarray | slice = slice(None)) -> None:
    for got, want in zip(actual[:4], expected[:4], strict=True):
        np.testing.assert_allclose(got[rows], want[rows], atol=TOLERANCE, rtol=0)


def test_whole_contexts_of_all_lengths_equal_the_model(of_heads: EngineWorld) -> None:
    given = columns(of_heads, [0] * len(COUNTS))
    budget = len(COUNTS) * 2**20 * 4
    compiled, model = (
        encode(encoder_of(kind, of_heads.model, budget, num_threads=3), given) for kind in (CpuEncoder, TorchEncoder)
    )
    assert_close(compiled, model)
    last, contexts = np.cumsum(given.lengths) - 1, [member.request().context for member in of_heads.members(COUNTS)]
    full = recompute(of_heads.model, of_heads.features, contexts)
    np.testing.assert_allclose(compiled.item[last], full.item_NW, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", [CpuEncoder, TorchEncoder])
def test_a_head_that_was_not_trained_is_never_the_primary_intent_and_changes_nothing_else(
    paper_size: EngineWorld, kind: type[CpuEncoder]
) -> None:
    given, model = columns(paper_size, [0] * len(COUNTS)), copy.deepcopy(paper_size.model)
    before = encode(encoder_of(kind, model, 1 << 26, num_threads=3), given)
    offsets = np.array(model.domain.label_offsets)
    leading = np.searchsorted(offsets, before.primary, side="right") - 1
    (untrained,) = np.unique(leading)[:1]
    model.set_untrained_heads({model.domain.heads[untrained].name})
    after = encode(encoder_of(kind, model, 1 << 26, num_threads=3), given)
    for got, want in zip(after[:-1], before[:-1], strict=True):
        np.testing.assert_array_equal(got, want)
    weights = before.alpha.copy()
    weights[:, untrained] = 0.0
    second = weights.argmax(axis=1)
    bounds = np.append(offsets, before.probs.shape[1])
    rows = zip(before.probs, second, strict=True)
    expected = [offsets[m] + probs[bounds[m] : bounds[m + 1]].argmax() for probs, m in rows]
    assert after.primary.tolist() == expected
    assert (after.primary != before.primary).any()
    context = paper_size.members(COUNTS)[0].request().context
    assert recompute(model, paper_size.features, [context]).primary_N[0] == after.primary[0]


@pytest.mark.parametrize("kind", [CpuEncoder, TorchEncoder])
def test_plays_appended_to_what_is_cached_equal_the_whole(of_heads: EngineWorld, kind: type[CpuEncoder]) -> None:
    """Contexts cut at another place each: what is behind the cut is appended, one play or sixty."""
    cuts = [0, 1, 15, 31, 32, 4, 99, 17]
    whole = columns(of_heads, [0] * len(COUNTS))
    expected = encode(encoder_of(kind, of_heads.model, 1 << 26, num_threads=3), whole)
    encoder = encoder_of(kind, of_heads.model, 1 << 26, num_threads=3)
    heads = np.cumsum(whole.lengths) - whole.lengths
    before = np.concatenate([head + np.arange(cut) for head, cut in zip(heads, cuts, strict=True)])
    behind = np.setdiff1d(np.arange(len(whole.item_row)), before)
    with torch.inference_mode():
        lengths, units = np.array(cuts), np.arange(8) * encoder.slot_units
        encoder.encode(part(whole, before, lengths, 0 * lengths)[0], units[lengths > 0], np.ones(len(before), bool))
        given, _ = part(whole, behind, whole.lengths - lengths, lengths)
        got = encoder.encode(given, units, np.ones(len(behind), dtype=bool))
    assert_close(got, StepOutput(*(array[behind] for array in expected)))


@pytest.mark.parametrize("kind", [CpuEncoder, TorchEncoder])
def test_plays_appended_to_what_was_moved_equal_the_whole(of_heads: EngineWorld, kind: type[CpuEncoder]) -> None:
    whole = columns(of_heads, [0] * len(COUNTS))
    expected = encode(encoder_of(kind, of_heads.model, 1 << 26, num_threads=3), whole)
    encoder = encoder_of(kind, of_heads.model, 1 << 26, num_threads=3)
    newest = np.cumsum(whole.lengths) - 1
    before = np.setdiff1d(np.arange(len(whole.item_row)), newest)
    units, moved = (encoder.slot_units * (np.arange(8) + first) for first in (0, 4))  # half of them overlap
    cached = whole.lengths > 1
    with torch.inference_mode():
        given, _ = part(whole, before, whole.lengths - 1, 0 * whole.lengths)
        encoder.encode(given, units[cached], np.ones(len(before), dtype=bool))
        encoder.move(0, int(moved[0]), 8 * encoder.slot_units)
        given, _ = part(whole, newest, np.ones_like(whole.lengths), whole.lengths - 1)
        got = encoder.encode(given, moved, np.ones(8, dtype=bool))
    assert_close(got, StepOutput(*(array[newest] for array in expected)))


def part(whole: Columns, rows: np.ndarray, lengths: np.ndarray, starts: np.ndarray) -> tuple[Columns, np.ndarray]:
    some = lengths > 0
    flat = (whole.item_row, whole.codes, whole.ts_s, whole.gap_s, whole.weight)
    return Columns(*(column[rows] for column in flat), lengths[some], starts[some]), some


def test_rows_nobody_wants_change_nothing_for_the_others(paper_size: EngineWorld) -> None:
    given = columns(paper_size, [0] * len(COUNTS))
    everything = encode(CpuEncoder(paper_size.model.weights(), 1 << 26), given)
    wanted = np.random.default_rng(0).random(len(given.item_row)) < 0.2
    some = encode(CpuEncoder(paper_size.model.weights(), 1 << 26), given, wanted=wanted)
    assert_close(some, everything, wanted)
    for got, want in zip(some[1:], everything[1:], strict=True):  # heads feed the item encoder: they are never left out
        np.testing.assert_array_equal(got, want)


def test_two_encoders_may_work_at_the_same_time(paper_size: EngineWorld) -> None:
    """A bundle is loaded and tried on one thread while another one serves."""
    given = columns(paper_size, [0] * len(COUNTS))
    encoders = [CpuEncoder(paper_size.model.weights(), 1 << 26) for _ in range(2)]
    expected, found = encode(encoders[0], given), list[StepOutput]()
    threads = [
        threading.Thread(target=lambda e=encoder: [found.append(encode(e, given)) for _ in range(5)])
        for encoder in encoders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    for output in found:
        assert_close(output, expected)


def test_kernels_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(5, 37))).astype(np.float32)
    w, out = rng.normal(size=(37, 11)).astype(np.float32), np.zeros((5, 11), dtype=np.float32)
    kernels.linear(x, w, out, 5)
    np.testing.assert_allclose(out, x @ w, atol=1e-4)
    floats, numbers = np.empty(37, dtype=np.float32), np.empty(37, dtype=np.int32)
    y = x.copy()
    kernels.gelu(y, floats, numbers, 5)
    np.testing.assert_allclose(y, functional.gelu(torch.from_numpy(x).double()), atol=2e-6)
    row = x[0] * 10
    expected = np.exp(row.astype(np.float64) - row.max())
    kernels.softmax(row, numbers)
    np.testing.assert_allclose(row, expected / expected.sum(), rtol=2e-5, atol=1e-12)
    lags = np.geomspace(1e-3, 1e9, 37).astype(np.float32)
    expected = np.log1p(lags.astype(np.float64))
    kernels.log1p_all(lags, numbers)
    np.testing.assert_allclose(lags, expected, atol=2e-6)


def test_a_number_that_is_none_comes_through_a_softmax() -> None:
    """A broken model must be seen: the engine's caller looks for outputs that are not finite."""
    row = np.array([1.0, np.nan, 2.0], dtype=np.float32)
    kernels.softmax(row, np.empty(3, dtype=np.int32))
    assert np.isnan(row).all()


def test_making_an_encoder_compiles_its_step(paper_size: EngineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(cpu_encoder, "encode_held", lambda *arguments: calls.append(arguments))
    CpuEncoder(paper_size.model.weights(), 2**22)
    assert len(calls) == 1, "no play waits for the compiler"
