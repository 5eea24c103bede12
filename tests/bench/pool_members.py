"""What it is worth that members with few plays take a part of a slot: plays of a simulated world by an engine whose pool is too
small for all members, with a whole slot for each member, with parts of slots for one whole context, and of slots for three.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.engine.cpu.encoder import CpuEncoder, context_bytes
from intentrec_core.engine.encoder import StepOutput
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.features.columns import Columns
from intentrec_core.history.history import History
from intentrec_core.model.weights import ModelWeights
from intentrec_core.simulation.simulate import World
from tests.bench.engine_world import NUM_ITEMS, EngineWorld
from tests.bench.harness import Figures

#: The simulated world of the quality table: 40 plays a member in the end.
NUM_MEMBERS, NUM_PLAYS, SEED = 1_500, 60_000, 3
#: Plays before the first that is encoded; those that fill the pools; and whole contexts that a pool has room for.
NUM_BEFORE, NUM_FILLING, NUM_CONTEXTS = 40_000, 6_000, 75
#: Plays that a context holds at most: those of the domain `video`, and those of the bench's other parts.
CONTEXT_SIZES = (200, 512)
#: Plays that are encoded together: one pass where 75 contexts are 25 slots, so no kind of slots has more passes than another.
BATCH = 24


@dataclass(frozen=True)
class Found:
    """Members cached in the end, the share of plays that found theirs, positions encoded a play, and plays a second of processor
    time.
    """

    cached: int
    hits: float
    positions: float
    plays_per_s: int

    def __str__(self) -> str:
        return (
            f"{self.cached:,} of {NUM_MEMBERS:,} members cached in the room of {NUM_CONTEXTS} whole contexts, "
            f"{self.hits:.3f} hits, {self.positions:.1f} positions a play, {self.plays_per_s:,} plays a second of processor time"
        )


class WholeSlots(CpuEncoder):
    """An encoder that says that a slot cannot be divided."""

    def __init__(self, model: ModelWeights, pool_bytes: int, *, num_threads: int = 1) -> None:
        super().__init__(model, pool_bytes, num_threads=num_threads, slot_contexts=1)
        self._slot_groups = self.slot_units
        self.slot_units, self.unit_plays = 1, self.slot_units * self.unit_plays

    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """As the encoder's own."""
        slot_groups = getattr(self, "_slot_groups", 1)  # the encoder's own first call comes before
        return super().encode(columns, units * slot_groups, wanted)


#: How each kind of slots is named in figures, and its encoder.
KINDS = {
    "whole": WholeSlots,
    "parts": partial(CpuEncoder, slot_contexts=1),
    "three": partial(CpuEncoder, slot_contexts=3),
}


def members(quick: bool) -> Figures:
    """Hits, positions and processor time a play: whole slots, parts of slots for one context, and parts of slots for three."""
    num_plays = NUM_FILLING + 500 if quick else NUM_PLAYS - NUM_BEFORE
    figures: Figures = {"pool_members": NUM_MEMBERS, "pool_slots": NUM_CONTEXTS, "pool_batch": BATCH}
    for context_size in CONTEXT_SIZES:
        world, found = EngineWorld(context_size // 2), dict[str, Found]()
        for name, kind in KINDS.items():
            engine = IncrementalEngine(
                world.model.weights(),
                world.features,
                pool_bytes=NUM_CONTEXTS * context_bytes(world.model),
                version=name,
                make_encoder=partial(kind, world.model.weights(), num_threads=torch.get_num_threads()),
            )
            found[name] = _played(world, engine, num_plays)
            print(f"contexts of up to {context_size} plays, {name}: {found[name]}", flush=True)
            figures |= {f"pool_{context_size}_{name}_{key}": value for key, value in asdict(found[name]).items()}
        three, parts, whole = found["three"], found["parts"], found["whole"]
        figures |= {
            f"pool_{context_size}_cached_over_whole": round(parts.cached / whole.cached, 3),
            f"pool_{context_size}_plays_over_whole": round(parts.plays_per_s / whole.plays_per_s, 3),
            f"pool_{context_size}_three_cached_over_parts": round(three.cached / parts.cached, 3),
            f"pool_{context_size}_three_plays_over_parts": round(three.plays_per_s / parts.plays_per_s, 3),
        }
    return figures


def _played(world: EngineWorld, engine: IncrementalEngine, num_plays: int) -> Found:
    stats, num_encoded, before, began_s = engine.stats, 0, (0, 0, 0), 0.0
    for requests in _batches(world, num_plays):
        if not began_s and num_encoded >= NUM_FILLING:
            before, began_s, num_encoded = (stats.hits, stats.misses, stats.positions), time.process_time(), 0
        engine.encode(requests)
        num_encoded += len(requests)
    seconds = time.process_time() - began_s
    now = (stats.hits, stats.misses, stats.positions)
    hits, misses, positions = (after - earlier for after, earlier in zip(now, before, strict=True))
    return Found(
        cached=engine.num_cached,
        hits=round(hits / (hits + misses), 4),
        positions=round(positions / num_encoded, 3),
        plays_per_s=round(num_encoded / seconds),
    )


def _batches(world: EngineWorld, num_plays: int) -> Iterator[list[EncodeRequest]]:
    """The plays after the first ones, each member once in a batch, as requests to the engine."""
    histories: dict[str, History] = {}
    requests: dict[str, EncodeRequest] = {}
    for number, simulated in enumerate(World("video", users=NUM_MEMBERS, seed=SEED).plays(NUM_BEFORE + num_plays)):
        play = simulated.play
        if len(requests) == BATCH or play.user_id in requests:
            yield list(requests.values())
            requests = {}
        history = histories.setdefault(play.user_id, History())
        packed = world.layout.pack(
            item_id=f"i{crc32(play.item_id.encode()) % NUM_ITEMS}",
            event_id=str(number),
            ts_ms=play.ts_ms,
            duration_s=600.0,
            attributes={"action": "discover", "device": "tv", "episode": 1},
        )
        fold = history.apply(world.layout, packed, number)
        if number >= NUM_BEFORE:
            first_changed = 0 if fold.evicted else fold.position
            anchor = history.anchor(world.layout)
            requests[play.user_id] = EncodeRequest(play.user_id, anchor, history.events, first_changed)
    if requests:
        yield list(requests.values())
