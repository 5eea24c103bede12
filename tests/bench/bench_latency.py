"""End-to-end latency of lists at few plays a second, at half of the worker's throughput next to the pass-through, and in a swap.

One worker process: its members are played in, its capacity is measured in a burst, then plays come in an open loop: 200 a second,
and then half of the capacity, undisturbed and, in between, while bundles with other weights are announced. The pass-through, with
all guarantees and no model, gets the same rate; ``--only worker`` leaves it out.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.bundles.announcements import announce
from tests.bench.harness import BenchOptions, Figures
from tests.bench.open_loop import OpenLoop
from tests.bench.rates import BenchFailed, Program
from tests.bench.worker_plays import plays
from tests.bench.worker_stand import OUR_WORKER, PASS_THROUGH, Stand, open_stand
from tests.bench.worker_world import NUM_PLANNING, fill_plays, open_row

PARTS = ("worker", "passthrough")
#: The largest of them is the capacity: a burst includes its ramp, and errs low.
_NUM_BURSTS = 3
#: After a swap, members who were not moved warm are encoded at their next play: that is still the swap's doing.
SETTLE_S = 2.0
_BEFORE_FIRST_LIST_S = 0.5
#: The broker does not gather plays at this rate (stream.delivery.gathering).
FEW_PER_S = 200
#: After a change of the rate, until the worker has noticed it.
_AT_NEW_RATE_S = 1.5
#: Members are moved for ten minutes at most (stream.bundles.hot_swap); loading comes before that.
_SWAPPED_WITHIN_S = 700.0
_CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of it. A burst must outlast the first polls; 300 members are half a gigabyte of keys and values a bundle.

    The broker compiles what it does while it does it, on the cores that are measured: after ``warm_s`` it has.
    """

    num_active: int = 300
    num_planning: int = NUM_PLANNING
    burst: int = 6_000
    warm_s: float = 20.0
    seconds: float = 15.0
    num_swaps: int = 2


QUICK = Scale(num_active=20, num_planning=0, burst=200, warm_s=0.5, seconds=1.5, num_swaps=1)


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    scale = QUICK if options.quick else Scale()
    figures: Figures = {}
    with open_stand(scale.num_planning) as stand:
        rate, p99_s = _worker(stand, scale, figures)
        if options.wants("passthrough"):
            latencies_s = _pass_through(stand, scale, rate)
            figures |= _report("passthrough", latencies_s)
            figures["p99_over_passthrough"] = round(p99_s / float(np.quantile(latencies_s, 0.99)), 3)
    return figures


def _worker(stand: Stand, scale: Scale, figures: Figures) -> tuple[float, float]:
    """Capacity, steady state and swaps of one worker; returns the rate of the plays (a second) and its p99 (seconds)."""
    settings = stand.settings("worker", "plays-worker")
    fill_plays(settings, [])
    open_row(settings, num_active=scale.num_active, bundle=stand.bundle.name)
    coming = [stand.another_bundle(seed) for seed in range(1, scale.num_swaps + 1)]
    environment = stand.environment(settings)
    with (
        Program(OUR_WORKER, stand.folder / "worker.log", environment) as program,
        OpenLoop(settings, program, _endless_plays(scale.num_active)) as loop,
    ):
        loop.burst(8 * scale.num_active)
        bursts = [loop.burst(scale.burst) for _ in range(_NUM_BURSTS)]
        capacity = max(bursts)
        rate = capacity / 2
        print(f"{'capacity':<24} {capacity:10,.0f} plays/s; half of it from here on", flush=True)
        loop.send(rate, lambda passed_s: passed_s >= scale.warm_s)
        figures |= {"bursts_per_s": [round(burst) for burst in bursts], "rate_per_s": round(rate)}
        loop.send(FEW_PER_S, lambda passed_s: passed_s >= _AT_NEW_RATE_S)
        figures |= _report("few", loop.send(FEW_PER_S, lambda passed_s: passed_s >= scale.seconds)[1])
        loop.send(rate, lambda passed_s: passed_s >= _AT_NEW_RATE_S)
        steadily_s, swapping_s, moving_s = [], [], []
        for version in coming:
            steadily_s.append(loop.send(rate, lambda passed_s: passed_s >= scale.seconds)[1])
            announced_s = time.time()
            asyncio.run(announce(settings, bundle=version, url=settings.bundle_url))
            due_s, latencies_s = loop.send(rate, lambda passed_s, version=version: _swapped(loop, version, passed_s))
            swapping_s.append(latencies_s)
            first_list_s = loop.first_answer_s[version]
            moving_s.append(latencies_s[due_s >= first_list_s - _BEFORE_FIRST_LIST_S])
            first_s, last_s = (at_s - announced_s for at_s in (first_list_s, _last_of_others(loop, version)))
            print(
                f"{'swap':<24} {first_s:10.1f} s to the new bundle's first list, {last_s:.1f} s to the old one's last"
            )
        steadily_s.append(loop.send(rate, lambda passed_s: passed_s >= scale.seconds)[1])
        steady_s = np.concatenate(steadily_s)
        figures |= _report("worker", steady_s)
        # From the announcement on, however long loading takes; and while members move alone, which loading cannot dilute.
        figures |= _report("swap", np.concatenate(swapping_s)) | _report("moving", np.concatenate(moving_s))
    steady_p99_s = float(np.quantile(steady_s, 0.99))
    worse_s = max(float(np.quantile(np.concatenate(part), 0.99)) for part in (swapping_s, moving_s))
    figures["p99_over_p50"] = round(steady_p99_s / float(np.median(steady_s)), 3)
    figures["p99_swap_over_steady"] = round(worse_s / steady_p99_s, 3)
    return rate, steady_p99_s


def _pass_through(stand: Stand, scale: Scale, rate: float) -> NDArray[np.float64]:
    settings = stand.settings("passthrough", "plays-passthrough")
    fill_plays(settings, [])
    open_row(settings, num_active=scale.num_active)
    with (
        Program(PASS_THROUGH, stand.folder / "passthrough.log", stand.environment(settings)) as program,
        OpenLoop(settings, program, _endless_plays(scale.num_active)) as loop,
    ):
        loop.burst(8 * scale.num_active)
        loop.send(rate, lambda passed_s: passed_s >= scale.warm_s)
        return loop.send(rate, lambda passed_s: passed_s >= scale.seconds)[1]


def _swapped(loop: OpenLoop, version: str, passed_s: float) -> bool:
    """Whether a bundle has answered alone for long enough that everybody who plays has been encoded by it."""
    if passed_s > _SWAPPED_WITHIN_S:
        raise BenchFailed(f"bundle {version} does not answer everything after {passed_s:.0f} s")
    return version in loop.first_answer_s and time.time() - _last_of_others(loop, version) >= SETTLE_S


def _last_of_others(loop: OpenLoop, version: str) -> float:
    return max(at_s for other, at_s in dict(loop.last_answer_s).items() if other != version)


def _endless_plays(num_active: int) -> Iterator[tuple[bytes, bytes]]:
    for first in itertools.count(0, _CHUNK):
        yield from plays(_CHUNK, num_active=num_active, first=first)


def _report(name: str, latencies_s: NDArray[np.float64]) -> Figures:
    p50_ms, p99_ms = (1000 * float(np.quantile(latencies_s, q)) for q in (0.5, 0.99))
    print(f"{name:<24} p50 {p50_ms:7.1f} ms   p99 {p99_ms:7.1f} ms   of {len(latencies_s):,} plays", flush=True)
    return {
        f"{name}_p50_ms": round(p50_ms, 2),
        f"{name}_p99_ms": round(p99_ms, 2),
        f"{name}_plays": len(latencies_s),
    }
