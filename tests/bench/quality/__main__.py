"""Runs the quality table: see the package."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from intentrec_core.evaluation.metrics import gains
from intentrec_core.evaluation.protocols import Protocol
from tests.bench.harness import HISTORY
from tests.bench.quality import figures
from tests.bench.quality.data_sets import DATA_SETS, QUICK, Loaded, Measured
from tests.bench.quality.figures import COMPARED, HistoryRow, PlayValues
from tests.bench.quality.plan import all_rows
from tests.bench.quality.rows import Answers, Row
from tests.bench.quality.runs import Runs, run_key

HISTORY_FILE = HISTORY / "quality.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    options = _options(arguments)
    history = History(None if options.quick else HISTORY_FILE)
    torch.set_num_threads(options.threads)
    rows = [row for row in all_rows() if not options.rows or any(words in row.name for words in options.rows)]
    data_sets = [m for m in (QUICK if options.quick else DATA_SETS) if not options.only or m.name in options.only]
    for measured in data_sets:
        if not measured.is_present(options.data_root):
            print(f"{measured.title}: skipped, --data-root {options.data_root} has no folder of it", flush=True)
            continue
        loaded = measured.loaded(options.data_root)
        print(f"{measured.title}: data {loaded.digest}, ranked are {loaded.universe}", flush=True)
        for make in measured.protocols:
            _table(measured, loaded, make(loaded.data), rows, options, history)
    return 0


class History:
    """The rows of the history file, to which rows of new runs are appended at once; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path is not None else []
        self._runs = {row["run"] for row in map(json.loads, lines) if "run" in row}

    def has(self, run: str) -> bool:
        """Whether the figures of a run are in the file."""
        return run in self._runs

    def add(self, run: str, rows: Iterable[HistoryRow]) -> None:
        """Appends the rows of a run, if they are not there."""
        if self._path is None or run in self._runs:
            return
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
        self._runs.add(run)


def _table(
    measured: Measured,
    loaded: Loaded,
    protocol: Protocol,
    rows: Sequence[Row],
    options: argparse.Namespace,
    history: History,
) -> None:
    test = protocol.test
    print(
        f"  {protocol.name}: {len(test):,} plays, {test.is_new_member().mean():.1%} of new members, "
        f"{test.is_new_item().mean():.1%} of new items; validation {len(protocol.validation):,} plays",
        flush=True,
    )
    averaged: dict[str, PlayValues] = {}
    keys: dict[str, str] = {}
    for row in rows:
        if not row.protocols(protocol.name) or not row.wants(measured.name):
            continue
        of_seeds: dict[int, PlayValues] = {}
        run_keys = []
        for seed in row.seeds[: 1 if options.quick else options.seeds]:
            key = run_key(loaded, protocol, row, seed)
            answers = _answers(measured, loaded, protocol, row, seed, key, options)
            if answers is None:
                continue
            of_seeds[seed] = values = figures.play_values(answers, loaded, protocol)
            run_keys.append(key)
            if not history.has(key):
                history.add(key, figures.history_rows(loaded, protocol, row.name, seed, key, answers, values))
        if not of_seeds:
            continue
        keys[row.name] = _joined(run_keys)
        averaged[row.name] = {
            m: figures.mean_of_seeds([v[m] for v in of_seeds.values()]) for m in next(iter(of_seeds.values()))
        }
        if len(of_seeds) > 1 and not history.has(keys[row.name]):
            history.add(keys[row.name], figures.mean_rows(loaded, protocol, row.name, of_seeds, keys[row.name]))
    for row in rows:
        if not row.is_ours or row.name not in averaged:
            continue
        for other in averaged:
            if other != row.name and not history.has(pair := _joined([keys[row.name], keys[other]])):
                ours, theirs = averaged[row.name][COMPARED], averaged[other][COMPARED]
                history.add(pair, figures.compared_rows(loaded, protocol, row.name, ours, {other: theirs}, pair))


def _answers(
    measured: Measured, loaded: Loaded, protocol: Protocol, row: Row, seed: int, key: str, options: argparse.Namespace
) -> Answers | None:
    """The run of a row: from the folder of runs, or made now. None where only finished runs are wanted and this is none."""
    runs = Runs()
    began_s = time.perf_counter()
    answers = runs.read(key) if not options.again else None
    if answers is None:
        if options.finished:
            return None
        answers = row.answer(measured, loaded, protocol, seed)
        if not options.quick:
            runs.keep(key, answers)
    took = f"{time.perf_counter() - began_s:6.1f} s"
    shown = f"seed {seed}" if len(row.seeds) > 1 else ""
    gain = gains(answers.ranked.ranks).mean()
    print(f"    {row.name:44} {shown:7} NDCG@10 {gain:.4f}  {took}  {answers.note}".rstrip(), flush=True)
    return answers


def _joined(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else hashlib.sha256("\0".join(keys).encode()).hexdigest()[:16]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.quality", description="Measure every model and baseline."
    )
    parser.add_argument("--data-root", type=Path, help="the folder that holds movietweetings_100k, amazon_beauty, …")
    parser.add_argument("--only", action="append", default=[], help="a data set by its name; may be repeated")
    parser.add_argument(
        "--rows", action="append", default=[], help="rows whose name holds these words; may be repeated"
    )
    parser.add_argument("--seeds", type=int, default=None, help="no more seeds than this")
    parser.add_argument(
        "--threads", type=int, default=2, help="torch's threads: the same number gives the same weights"
    )
    parser.add_argument("--quick", action="store_true", help="a small world, and nothing is kept: to try the harness")
    parser.add_argument(
        "--finished", action="store_true", help="make no run: only write figures of those that are kept"
    )
    parser.add_argument("--again", action="store_true", help="make runs again that are kept")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
