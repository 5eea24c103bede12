"""The paged kernel against gathering, in Triton's interpreter: a program, because it must be chosen before triton is imported.

Prints one line of JSON. "kernel": for each case its name and the largest differences of outputs, of keys and values kept, and of
times. "model": the largest difference of what a whole model says with it, all layers, step by step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch

from intentrec_core.domain.toml import load_domain
from intentrec_core.engine.cuda.decode_step import DecodeStep
from intentrec_core.engine.cuda.kv_pool import KvPool, slot_bytes
from intentrec_core.engine.cuda.paged_attention import BLOCK_NUMBERS, PagedAttend
from intentrec_core.engine.cuda.pooled_attend import attend_to_whole_slots
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from tests.bench.gpu_world import GAP_S, GpuWorld

WINDOW = 160
WINDOW_S = 3600.0


@dataclass(frozen=True)
class Case:
    """One size of head and pool."""

    name: str
    dtype: torch.dtype
    depth: int
    num_heads: int = 2
    num_kv_heads: int = 2

    def pool(self) -> KvPool:
        """A pool of six slots as earlier plays left it: keys, values and rising times."""
        config = ModelConfig(
            width=self.depth * self.num_heads, num_heads=self.num_heads, num_kv_heads=self.num_kv_heads, num_layers=1
        )
        domain = replace(load_domain("video"), window=WINDOW)
        sizes = SimpleNamespace(config=config, domain=domain, device=torch.device("cpu"))
        model: IntentRec = sizes  # a pool asks for sizes only
        pool = KvPool(model, 6 * slot_bytes(model, self.dtype), self.dtype)
        random = torch.Generator().manual_seed(self.depth)
        for memory in (pool.k_LNHCD, pool.v_LNHCD):
            memory.copy_(torch.randn(memory.shape, generator=random))
        gaps = 300 * torch.rand(pool.ts_NC.shape, generator=random, dtype=torch.float64)
        pool.ts_NC.copy_(1.7e9 + gaps.cumsum(1))
        return pool


def cases() -> Iterator[Case]:
    """Every dtype with every width of a head, and with two heads of keys and values for four heads."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for depth in (16, 32, 64):
            yield Case(f"{str(dtype).removeprefix('torch.')}, heads of {depth}", dtype, depth)
        yield Case(f"{str(dtype).removeprefix('torch.')}, shared heads of 32", dtype, 32, num_heads=4)


def differences(case: Case) -> dict[str, object]:
    """One new play in each of five slots: the first of its slot, in the first block, at its ends, and behind several."""
    block = BLOCK_NUMBERS // case.depth
    places = torch.tensor([0, 1, block - 1, block, 2 * WINDOW - 1])
    slots = torch.tensor([4, 0, 3, 1, 2])
    paged, gathered = case.pool(), case.pool()
    random = torch.Generator().manual_seed(1)
    ts_s = paged.ts_NC[slots, (places - 1).clamp(min=0)] + 30
    # The oldest key still within the window is exactly as old as it is long.
    ts_s[4] = paged.ts_NC[2, 2 * WINDOW - 20] + WINDOW_S
    ones = torch.ones_like(slots)
    batch = ContextBatch(ones, ones, ts_s[:, None], ones, ones, ones, places)
    attends = PagedAttend(paged, batch, slots, WINDOW_S), attend_to_whole_slots(gathered, batch, slots, WINDOW_S)
    group = case.num_heads // case.num_kv_heads
    slopes = torch.tensor([[1.0, -2.0, 0.3, -0.5], [-1.0, 0.5, 0.1, 2.0]])[:, : case.num_heads].contiguous()
    worst = 0.0
    for layer in range(len(paged.k_LNHCD)):
        # As a layer makes them: the three beside each other in one row; shared ones then once for each head.
        heads = (case.num_heads, case.num_kv_heads, case.num_kv_heads)
        new = torch.randn(5, 1, sum(heads), case.depth, generator=random)
        if case.dtype is torch.bfloat16:  # the interpreter cuts to it where a device waves to the nearest
            new = new.bfloat16().float()
        q, k, v = new.split(heads, dim=2)
        if group > 1:
            k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
        one, other = (attend(layer, q, k, v, slopes) for attend in attends)
        worst = max(worst, float((one - other).abs().max()))
    kept = max(
        float((a - b).abs().max()) for a, b in ((paged.k_LNHCD, gathered.k_LNHCD), (paged.v_LNHCD, gathered.v_LNHCD))
    )
    return {
        "name": case.name,
        "outputs": worst,
        "kept": kept,
        "times": float((paged.ts_NC - gathered.ts_NC).abs().max()),
    }


@torch.inference_mode()
def model_difference() -> float:
    """Members of uneven contexts play on, on two encoders; both layers' windows and more than one bucket row are met."""
    world = GpuWorld(torch.device("cpu"), context_size=60, num_items=50)
    starts = np.array([0, 7, 41])
    paged, gathered = (world.encoder(len(starts), torch.float32) for _ in range(2))
    for mine, other in zip(vars(paged.pool).values(), vars(gathered.pool).values(), strict=True):
        if isinstance(mine, torch.Tensor):
            mine.copy_(other)
    paged.decode = DecodeStep(world.model, paged.pool, PagedAttend)
    worst = 0.0
    for step in range(2):
        plays = world.plays(len(starts), 0)
        ts_s = plays.ts_s + GAP_S * (starts + step)
        plays = replace(plays, starts=starts + step, ts_s=ts_s)
        one, other = (
            encoder.encode(plays, np.array([2, 0, 1]), np.ones(3, dtype=bool)) for encoder in (paged, gathered)
        )
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)))
    return worst


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"kernel": [differences(case) for case in cases()], "model": model_difference()}))
