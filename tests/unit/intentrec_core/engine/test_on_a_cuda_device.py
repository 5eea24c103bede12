"""CUDA-only tests; skipped without a device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from intentrec_core.engine.cuda.decode_step import LARGEST_BUCKET
from intentrec_core.engine.cuda.kv_pool import slot_bytes
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.engine.reference import recompute
from intentrec_core.errors import DeviceLost
from intentrec_core.history.history import History
from tests.bench.bench_gpu import Bench
from tests.worlds.networks import network_of
from tests.worlds.tiny_world import TinyWorld

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ROOT = Path(__file__).parents[4]
#: An item row that no table has: the device asserts, and its context is broken for good. So in a process of its own.
BREAK_THE_DEVICE = """
import numpy as np
from dataclasses import replace
from intentrec_core.errors import DeviceLost
from stream.cli import root
from tests.unit.intentrec_core.engine.test_on_a_cuda_device import engine_on, requests
from tests.worlds.tiny_world import TinyWorld

engine = engine_on("cuda", TinyWorld(), 1 << 20)
columns = engine._features.columns
engine._features.columns = lambda *given: replace(columns(*given), item_row=np.full(2, 10**6))
for attempt in range(2):
    try:
        engine.encode(requests(engine, [1, 1]))
    except DeviceLost as error:
        print(attempt, "lost:", error)
        engine._features.columns = columns
root.app = lambda *arguments, **named: engine.encode(requests(engine, [1, 1]))
root.main([])
"""


def engine_on(device: str, world: TinyWorld, pool_bytes: int) -> IncrementalEngine:
    return IncrementalEngine(
        world.model(1).weights(), world.features, pool_bytes=pool_bytes, version="b0", device=device
    )


def requests(engine: IncrementalEngine, counts: list[int]) -> list[EncodeRequest]:
    """Members' contexts of so many plays."""
    world, made = TinyWorld(), []
    for user, count in enumerate(counts):
        history = History()
        for i in range(count):
            history.apply(world.layout, world.play(user + i, f"{user}-{i}", 60.0 * i), i)
        made.append(EncodeRequest(f"user-{user}", 0, bytes(history.events), 0))
    return made


def test_every_dtype_keeps_to_its_bounds_beside_the_cpu() -> None:
    with torch.inference_mode():
        assert Bench(torch.device("cuda"), quick=True).parity()["gpu_parity"] <= 1


def test_members_who_play_on_are_told_what_the_cpu_tells_them(world: TinyWorld) -> None:
    """Contexts encoded whole, then one new play, several, and both at once; larger than a step holds as well."""
    on_cpu, on_cuda = (engine_on(device, world, 1 << 30) for device in ("cpu", "cuda"))
    counts = [1 + 3 * user % 8 for user in range(LARGEST_BUCKET + 5)]
    for num_members, added in ((len(counts), 0), (40, 1), (len(counts), 1), (40, 2), (300, 1), (1, 1)):
        for user in range(num_members):
            counts[user] += added * (1 + user % 2 if added == 2 else 1)
        asked = requests(on_cpu, counts[:num_members])
        expected, got = on_cpu.encode(asked), on_cuda.encode(asked)
        assert on_cuda.stats.hits == on_cpu.stats.hits
        np.testing.assert_allclose(got.item_NW, expected.item_NW, atol=1e-3, rtol=0)
        for head, head_expected in zip(got.heads, expected.heads, strict=True):
            np.testing.assert_allclose(head, head_expected, atol=2e-4, rtol=0)


@pytest.fixture
def one_gib() -> Iterator[None]:
    """As if the device had no more."""
    torch.cuda.set_per_process_memory_fraction((1 << 30) / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("one_gib")
def test_a_pool_larger_than_the_device_is_made_smaller_and_answers(world: TinyWorld) -> None:
    engine = engine_on("cuda", world, 3 << 30)
    assert engine.num_slots * slot_bytes(engine.weights, torch.float16) < 1 << 30
    asked = requests(engine, [1, 3, 8])
    out = engine.encode(asked)
    expected = recompute(network_of(engine), world.features, [request.context for request in asked])
    np.testing.assert_allclose(out.item_NW, expected.item_NW, atol=1e-3, rtol=0)


def test_a_broken_device_is_named_at_once_and_stays_lost() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BREAK_THE_DEVICE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert [line.split()[:2] for line in ran.stdout.splitlines()] == [["0", "lost:"], ["1", "lost:"]], ran.stderr
    assert ran.returncode == DeviceLost.exit_code, ran.stderr
