"""Training: this SASRec against SASRec of RecTools, same width, layers, heads, length, batch, loss and optimiser.

    python -m tests.bench train --compare           BENCH_BEAUTY_FOLDER=… measures Amazon Beauty, too (tests/bench/train_data.py)

Each side is a process of its own with two threads and reads the same plays from the same file; they take turns. A play is one
that is predicted: padding does not count. Each turn's first epoch warms up. Ours keeps what it does beyond SASRec: a short-term
attention layer before the two, time biases, and an order of plays of one moment drawn anew each epoch.

Beside them: the bound, which is the arithmetic of a step at the speed of a large matrix product; and all of IntentRec, with
intents, as ``intentrec train`` trains it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.harness import BenchOptions, Figures
from tests.bench.train_data import DataSize, TrainingData, data_sets

CHECKOUT = Path(__file__).parents[2]
BASELINE = Path(__file__).parent / "baselines" / "rectools"
VENV = CHECKOUT / ".intentrec" / "bench" / "rectools"

DATA_SETS = ("movielens", "beauty")
PARTS = (*DATA_SETS, "intents")
THREADS = 2
SASREC: dict[str, Any] = {
    "threads": THREADS,
    "seed": 0,
    "width": 64,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.2,
    "batch_windows": 128,
    "learning_rate": 1e-3,
}


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    rounds, epochs = (1, 2) if options.quick else (3, 3)
    figures: Figures = dict(SASREC)
    rectools = _rectools(install=not options.quick)
    with tempfile.TemporaryDirectory() as folder:
        for data in data_sets(quick=options.quick):
            if options.wants(data.name):
                figures |= _compare(data, Path(folder) / "plays.csv", rectools, rounds, epochs)
    if options.wants("intents"):
        settings = {"threads": THREADS, "seed": 0, "epochs": epochs, "max_plays": 2_000 if options.quick else 100_000}
        found = _run(sys.executable, "-m", "tests.bench.train_ours", "movielens", json.dumps(settings))
        figures["train_intents_plays_per_s"] = round(_plays_per_s(found))
        print(f"IntentRec with intents, as shipped: {figures['train_intents_plays_per_s']:,} plays/s", flush=True)
    ratios = [ratio for name, ratio in figures.items() if name.startswith("train_over_sasrec_")]
    if len(ratios) == len(DATA_SETS):
        figures["train_over_sasrec"] = min(ratios)
    elif ratios:
        print(f"train_over_sasrec is the worse of {' and '.join(DATA_SETS)}: not all of them were measured", flush=True)
    return figures


def _compare(data: TrainingData, path: Path, rectools: Path | None, rounds: int, epochs: int) -> Figures:
    size = data.write(path)
    settings = json.dumps({**SASREC, "length": data.length, "epochs": epochs})
    programs = {"ours": (sys.executable, "-m", "tests.bench.train_ours", str(path), settings)}
    if rectools:
        programs["rectools"] = (str(rectools), str(BASELINE / "sasrec.py"), str(path), settings)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            found[name].append(_run(*program))
    assert all(run["plays"] == size.targets for runs in found.values() for run in runs), "both predict the same plays"
    bound = max(run["matmul_flops_per_s"] for run in found["ours"]) / _flops_a_play(size)
    figures: Figures = {
        f"{data.name}_plays": size.targets,
        f"{data.name}_items": size.items,
        f"{data.name}_bound_plays_per_s": round(bound),
        f"{data.name}_popularity_loss": round(size.popularity_loss, 3),
    }
    for name, runs in found.items():
        rates = [_plays_per_s(run) for run in runs]
        figures[f"{data.name}_{name}_plays_per_s"] = round(median(rates))
        figures[f"{data.name}_{name}_loss"] = round(runs[-1]["loss"][-1], 3)
        loss = f"loss after {epochs} epochs {runs[-1]['loss'][-1]:.3f} (popularity alone {size.popularity_loss:.3f})"
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}; bound {bound:,.0f}"
        print(f"{data.name:>10} {name:>9}: {median(rates):9,.0f} plays/s ({spread}), {loss}", flush=True)
    if rectools:
        turns = list(zip(found["ours"], found["rectools"], strict=True))
        ratio = median(_plays_per_s(ours) / _plays_per_s(theirs) for ours, theirs in turns)
        of_cpu = median(_plays_per_cpu_s(ours) / _plays_per_cpu_s(theirs) for ours, theirs in turns)
        figures[f"train_over_sasrec_{data.name}"] = round(ratio, 2)
        figures[f"{data.name}_cpu_over_rectools"] = round(of_cpu, 2)
        print(f"{data.name:>10}     ratio: {ratio:.2f}, of plays per CPU second {of_cpu:.2f}", flush=True)
    return figures


def _plays_per_s(run: dict[str, Any]) -> float:
    """Of the fastest epoch but the first."""
    return float(run["plays"] / min(run["epoch_s"][1:]))


def _plays_per_cpu_s(run: dict[str, Any]) -> float:
    """The same by CPU seconds of both threads: what another process on the machine hardly changes."""
    return float(run["plays"] / min(run["epoch_cpu_s"][1:]))


def _flops_a_play(size: DataSize) -> float:
    """What our model multiplies and adds for one play, forwards (once) and backwards (twice)."""
    width, layers = SASREC["width"], SASREC["num_layers"]
    short_term, enter, layer = 4 * width**2, 2 * width**2, 8 * width**2
    attention = (1 + layers) * 2 * size.mean_keys * width
    return 6.0 * (short_term + enter + layers * layer + attention + size.items * width)


def _run(*program: str) -> dict[str, Any]:
    """The last line that a program prints, as JSON."""
    # Passive: where another process holds a core, a thread that spins until it comes back makes both sides many times slower.
    env = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(program, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{' '.join(program[:3])} failed:\n{ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _rectools(*, install: bool) -> Path | None:
    """The interpreter that has RecTools, as locked; installed first where it is not and ``install`` says so."""
    python, installed = VENV / "bin" / "python", VENV / "installed.txt"
    if not installed.is_file() or installed.read_bytes() != (BASELINE / "requirements.txt").read_bytes():
        if not install:
            print("RecTools is not installed: ours alone (without --quick it is installed first)", flush=True)
            return None
        print("installing RecTools into a venv of its own (torch is shared with ours by uv's cache)", flush=True)
        subprocess.run([BASELINE / "install.sh", VENV, sys.executable], check=True)
    return python
