"""What all benches share: timing in rounds, the machine they ran on, the history they are kept in.

A bench is a module ``tests.bench.bench_<name>`` with ``PARTS`` and ``measure(options) -> figures``: it prints lines for people as
it goes and returns flat, JSON-able figures; ratios that have a bar carry its key (:mod:`tests.bench.bars`). Whatever is compared
is measured in the same run, in turns, because these machines are shared.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from intentrec_core.errors import ConfigError
from tests.bench.bars import table

BENCHES = ("engine", "worker", "latency", "index", "recovery", "train", "gateway", "gpu", "capacity")
#: Those whose rows are kept: the others compute.
MEASURED = frozenset(BENCHES) - {"capacity"}
#: Their versions stand in every row: figures change with them.
PACKAGES = ("torch", "numpy", "numba", "faiss-cpu", "aiokafka")
HISTORY = Path(__file__).parent / "history"

Figures = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """``quick`` is for trying the bench itself: the same steps, too few rounds and too little data for figures to be believed.

    ``only`` names parts of a bench to run, from its ``PARTS``; empty runs all. ``inputs`` replace a bench's own (``capacity``);
    ``device`` is torch's name of where to compute (``gpu``).
    """

    quick: bool = False
    only: tuple[str, ...] = ()
    inputs: Mapping[str, float] | None = None
    device: str | None = None

    def wants(self, part: str) -> bool:
        """Whether a part is to be measured."""
        return not self.only or part in self.only


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one thing over rounds: the median and the 99th percentile (with few rounds, the longest)."""

    median_s: float
    p99_s: float

    @classmethod
    def of(cls, rounds_s: list[float]) -> Timing:
        """From each round's seconds."""
        ordered = sorted(rounds_s)
        return cls(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))])


def in_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Times each call once a round, one after another: what slows the machine for a while slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warm_up + rounds):
        for name, call in calls.items():
            began_s = clock()
            call()
            if number >= warm_up:
                seconds[name].append(clock() - began_s)
    return {name: Timing.of(rounds_s) for name, rounds_s in seconds.items()}


def run(name: str, options: BenchOptions, *, compare: bool) -> Figures:
    """Runs one bench: lines for people, the table where asked for, a row of history, and one line of JSON at the end.

    Raises: ConfigError for a part or an input that the bench does not have.
    """
    load_before = os.getloadavg()[0]
    # Before torch and FAISS come: a thread that spins until its fellows come back makes baselines slow where a core is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    bench = importlib.import_module(f"tests.bench.bench_{name}")
    unknown = [part for part in options.only if part not in bench.PARTS]
    if unknown:
        raise ConfigError(f"bench {name} has no part {unknown[0]!r}; it has: {', '.join(bench.PARTS) or 'one only'}")
    if options.inputs and name in MEASURED:
        raise ConfigError(f"bench {name} measures and takes no --set; capacity does")
    figures: Figures = bench.measure(options)
    row: Figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit_name(),
        "hardware": _hardware(),
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "packages": _packages(),
        "bench": name,
        **({"only": list(options.only)} if options.only else {}),
        **({"quick": True} if options.quick else {}),
        **figures,
    }
    if compare:
        print("\n".join(table(figures, name)), flush=True)
        if options.quick:
            print("--quick: too few rounds for any of this to be believed", flush=True)
    if name in MEASURED and not options.quick:
        with (HISTORY / f"{name}.jsonl").open("a") as history:
            history.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return row


def commit_name() -> str:
    """The commit that was measured; rows of the history itself make it no other one."""
    commit = _git("describe", "--always") or "unknown"
    return f"{commit}-dirty" if _git("status", "--porcelain", "--", ":/", f":(exclude){HISTORY}") else commit


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", "-C", str(HISTORY), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no git on a machine that was lent
        return ""
    return found.stdout.strip()


def _packages() -> dict[str, str]:
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def _hardware() -> str:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor() or platform.machine()}"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
