"""Cost of a play in the engine, next to recomputing the window and to reading its keys and values once.

    python -m tests.bench engine [--only speedup|bandwidth|hits|small|kv|lists|members] [--compare]

No broker, no index: contexts in, intents and item vectors out, features included. Members cycle through all places of their
window, so that every anchor move is paid for. Baseline (a) has it easier: its contexts all have one length, and nothing to pad.
Part kv has heads that share keys and values, and int8, beside float32 with all heads; part lists trains on MovieLens-100K to see
what int8 changes of the answers; part members plays a simulated world in a pool that is too small for all of its members.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from intentrec_core.engine.cpu.encoder import member_bytes
from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from tests.bench.baselines.recompute import WindowRecompute
from tests.bench.engine_world import CONFIG, EngineWorld, Member
from tests.bench.harness import BenchOptions, Figures, Timing, in_turns
from tests.bench.kv_lists import lists
from tests.bench.memory_bandwidth import read_bytes_per_s
from tests.bench.pool_members import members

NUM_MEMBERS = 64
#: Contexts of 171 to 340 plays: 256 in the mean.
WINDOW_256 = 170
SHORT, LONG = 32, 512
PARTS = ("speedup", "bandwidth", "hits", "small", "kv", "lists", "members")


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    figures: Figures = {"members": NUM_MEMBERS, "threads": torch.get_num_threads(), "width": 128, "layers": "2 + 2"}
    for part in (speedup, bandwidth, hits, small, kv, lists, members):
        if options.wants(part.__name__):
            figures.update(part(options.quick))
    return figures


def staggered(world: EngineWorld, num: int = NUM_MEMBERS) -> list[Member]:
    """Members at evenly spread places of the window's cycle."""
    return world.members([2 * world.window + 1 + i * world.window // num for i in range(num)])


def warmed(world: EngineWorld, members: Sequence[Member], kv_dtype: KvDtype = KvDtype.FLOAT32) -> IncrementalEngine:
    """An engine that has every member's context cached."""
    engine = world.engine(len(members), kv_dtype)
    engine.encode([member.request() for member in members])
    return engine


def speedup(quick: bool) -> Figures:
    """Plays/s over one whole cycle of the window, against (a) on 256 plays a member."""
    world = EngineWorld(WINDOW_256)
    members, uniform = staggered(world), world.members([256] * NUM_MEMBERS, seed=1)
    engine, recompute = warmed(world, members), WindowRecompute(world.model, world.features)
    contexts = [member.request().context for member in uniform]
    steps_a_round, rounds = (10, 1) if quick else (17, 10)
    steps_s: list[float] = []
    misses: list[int] = []

    def append() -> None:
        misses.append(engine.stats.misses)
        for _ in range(steps_a_round):
            steps_s.append(timed_step(engine, members))

    timing = in_turns({"recompute": lambda: recompute(contexts), "append": append}, rounds=rounds)
    steps_s = steps_s[steps_a_round:]  # the first round warms up
    step_s, moves = float(np.mean(steps_s)), engine.stats.misses - misses[1]
    ratio = timing["recompute"].median_s / step_s
    median_s, p99_s = np.median(steps_s), np.quantile(steps_s, 0.99)
    print(
        f"256 cached plays, {NUM_MEMBERS} members: {NUM_MEMBERS / step_s:,.0f} plays/s (a step: mean {step_s * 1e3:.2f} ms, "
        f"median {median_s * 1e3:.2f}, p99 {p99_s * 1e3:.2f}; {moves} anchor moves in {len(steps_s)} steps)\n"
        f"recomputing 256 plays each: {NUM_MEMBERS / timing['recompute'].median_s:,.0f} plays/s "
        f"({timing['recompute'].median_s * 1e3:.0f} ms); {ratio:.1f} times",
        flush=True,
    )
    return {
        "engine_speedup_256": round(ratio, 2),
        "plays_per_s_256": round(NUM_MEMBERS / step_s),
        "recompute_plays_per_s_256": round(NUM_MEMBERS / timing["recompute"].median_s, 1),
        "step_ms_mean": round(step_s * 1e3, 3),
        "step_ms_p99": round(float(p99_s) * 1e3, 3),
    }


def timed_step(engine: IncrementalEngine, members: Sequence[Member]) -> float:
    """Seconds of encoding one new play of each member; making the plays is not timed."""
    requests = [member.play() for member in members]
    began_s = time.perf_counter()
    engine.encode(requests)
    return time.perf_counter() - began_s


def bandwidth(quick: bool) -> Figures:
    """What 480 more cached plays cost, against reading the keys and values that are added, once."""
    world = EngineWorld(LONG // 2 + 32)
    cases = {}
    for length in (SHORT, LONG):
        members = world.members([length] * NUM_MEMBERS)
        cases[length] = (warmed(world, members), members)
    rounds = 5 if quick else 24
    seconds: dict[int, list[float]] = {SHORT: [], LONG: []}
    read: list[float] = []
    for number in range(rounds):
        for length, (engine, members) in cases.items():
            step_s = timed_step(engine, members)
            if number:
                seconds[length].append(step_s)
        read.append(read_bytes_per_s(torch.get_num_threads(), quick=quick))
    added = sum(_bytes_read(world, members) * sign for sign, (_, members) in zip((-1, 1), cases.values(), strict=True))
    short, long = (Timing.of(seconds[length]).median_s for length in (SHORT, LONG))
    bytes_per_s = float(np.median(read))
    bound_s = added / bytes_per_s
    ratio = (long - short) / bound_s
    print(
        f"a step at {SHORT} cached plays {short * 1e3:.2f} ms, at {LONG} {long * 1e3:.2f} ms; reading the {added / 1e6:.0f} MB "
        f"between them at {bytes_per_s / 1e9:.1f} GB/s takes {bound_s * 1e3:.2f} ms: {ratio:.2f} times that",
        flush=True,
    )
    return {
        "engine_kv_read_over_bandwidth": round(ratio, 3),
        "step_ms_32": round(short * 1e3, 3),
        "step_ms_512": round(long * 1e3, 3),
        "memory_gb_per_s": round(bytes_per_s / 1e9, 2),
    }


def _bytes_read(world: EngineWorld, members: Sequence[Member]) -> int:
    """Keys and values that the newest play of each member must see: all of them, but in the short-term layer the recent ones."""
    config, window_ms = world.config, world.domain.short_term_window_s * 1000
    num = 0
    for member in members:
        ts_ms = world.layout.view(member.request().context)["ts_ms"]
        num += len(ts_ms) * (config.num_cached_layers - 1) + int((ts_ms >= ts_ms[-1] - window_ms).sum())
    return num * 2 * config.width * 4


def hits(quick: bool) -> Figures:
    """Plays/s by the share of plays that find their keys and values cached, against (a) on the same contexts."""
    world = EngineWorld(WINDOW_256)
    members, uniform = staggered(world), world.members([256] * NUM_MEMBERS, seed=1)
    engine, recompute = warmed(world, members), WindowRecompute(world.model, world.features)
    contexts, rng = [member.request().context for member in uniform], np.random.default_rng(0)
    seconds: dict[int, list[float]] = {100: [], 90: [], 50: [], 0: []}

    def with_hits(percent: int) -> Callable[[], None]:
        def run() -> None:
            cold = rng.permutation(NUM_MEMBERS)[: round(NUM_MEMBERS * (1 - percent / 100))]
            for member in cold.tolist():
                engine.forget(members[member].user_id)
            seconds[percent].append(timed_step(engine, members))

        return run

    calls = {f"hits {percent}": with_hits(percent) for percent in seconds}
    timing = in_turns({**calls, "recompute": lambda: recompute(contexts)}, rounds=2 if quick else 7)
    rates = {percent: NUM_MEMBERS / Timing.of(steps_s[1:]).median_s for percent, steps_s in seconds.items()}
    recomputed = NUM_MEMBERS / timing["recompute"].median_s
    shown = ", ".join(f"{percent} %: {rate:,.0f}" for percent, rate in rates.items())
    print(
        f"plays/s by the share that finds its keys and values cached: {shown}; recomputing: {recomputed:,.0f}",
        flush=True,
    )
    return {
        **{f"plays_per_s_hits_{percent}": round(rate) for percent, rate in rates.items()},
        "hits_0_over_recompute": round(rates[0] / recomputed, 3),
    }


def small(quick: bool) -> Figures:
    """Milliseconds of a step by batch size: what a play waits for when the worker is not busy."""
    world = EngineWorld(WINDOW_256)
    figures: Figures = {}
    for num in (1, 4, 16, 64):
        members = staggered(world, num)
        engine = warmed(world, members)
        timing = Timing.of([timed_step(engine, members) for _ in range(20 if quick else 200)][5:])
        print(
            f"{num:>3} members a step: median {timing.median_s * 1e3:.2f} ms, p99 {timing.p99_s * 1e3:.2f}", flush=True
        )
        figures[f"step_ms_of_{num}"] = round(timing.median_s * 1e3, 3)
    return figures


@dataclass(frozen=True)
class KvCase:
    """How keys and values are cached: heads of them (None: as many as heads), and their type."""

    num_heads: int | None
    dtype: KvDtype

    @property
    def key(self) -> str:
        """Of its figures in the JSON. Those of all heads have the names that they had before heads were shared."""
        heads = "" if self.num_heads is None else f"_heads_{self.num_heads}"
        return f"kv{heads}_{self.dtype}"

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.num_heads or 'all'} head{'s' if self.num_heads != 1 else ''} of keys and values, {self.dtype}"

    def world(self, window: int) -> EngineWorld:
        """The bench's model with these heads."""
        return EngineWorld(window, replace(CONFIG, num_kv_heads=self.num_heads))


KV_CASES = tuple(KvCase(num_heads, dtype) for num_heads in (None, 2, 1) for dtype in KvDtype)


def kv(quick: bool) -> Figures:
    """Bytes of a member whose context holds so many plays, and plays/s at 256 cached plays: heads of keys and values and types in
    turns, against float32 with all heads.
    """
    return kv_bytes() | kv_steps(quick)


def kv_bytes() -> Figures:
    """Bytes of a member's part of a slot, with keys, values, scales and times, where contexts may hold 512 plays."""
    figures: Figures = {}
    for plays in (30, 256, 512):
        sizes = {case: member_bytes(case.world(256).model, plays, case.dtype) for case in KV_CASES}
        plain = sizes[KV_CASES[0]]
        for case, size in sizes.items():
            print(
                f"a member at {plays} plays, {case.shown}: {size:,} bytes, {plain / size:.2f} times the members",
                flush=True,
            )
            name = case.key.removesuffix("_float32")
            figures[f"{name}_bytes_a_member_{plays}"] = size
            if case is not KV_CASES[0]:
                figures[f"{name}_members_over_float32_{plays}"] = round(plain / size, 3)
    return figures


def kv_steps(quick: bool) -> Figures:
    """A step of every case in turns."""
    figures: Figures = {}
    engines: dict[KvCase, tuple[IncrementalEngine, list[Member]]] = {}
    for case in KV_CASES:
        world = case.world(256)
        members = world.members([256] * NUM_MEMBERS)
        engines[case] = warmed(world, members, case.dtype), members
    seconds: dict[KvCase, list[float]] = {case: [] for case in KV_CASES}
    for _ in range(10 if quick else 80):
        for case, (engine, members) in engines.items():
            seconds[case].append(timed_step(engine, members))
    median_s = {case: Timing.of(steps_s[5:]).median_s for case, steps_s in seconds.items()}
    plain = median_s[KV_CASES[0]]
    for case, step_s in median_s.items():
        print(
            f"{case.shown}: a step of {NUM_MEMBERS} members {step_s * 1e3:.2f} ms, {NUM_MEMBERS / step_s:,.0f} plays/s, "
            f"{plain / step_s:.2f} times"
        )
        figures[f"{case.key}_step_ms"] = round(step_s * 1e3, 3)
        figures[f"{case.key}_plays_per_s"] = round(NUM_MEMBERS / step_s)
        if case is not KV_CASES[0]:
            figures[f"{case.key.removesuffix('_float32')}_plays_over_float32"] = round(plain / step_s, 3)
    return figures
