"""Runs the quality table: see the package."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from intentrec_core.evaluation.metrics import gains
from intentrec_core.evaluation.protocols import Protocol
from tests.bench.harness import HISTORY
from tests.bench.quality import figures
from tests.bench.quality.data_sets import DATA_SETS, QUICK, Loaded, Measured
from tests.bench.quality.figures import HistoryRow, PlayValues, Source
from tests.bench.quality.freshness import freshness_protocols, freshness_rows
from tests.bench.quality.oracle import ORACLE, TOLD
from tests.bench.quality.plan import all_rows
from tests.bench.quality.rows import Answers, Row
from tests.bench.quality.runs import ASKED, Runs, hashed, row_hash, run_key

HISTORY_FILE = HISTORY / "quality.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    options = _options(arguments)
    history = History(None if options.quick else HISTORY_FILE, again=options.again)
    with _threads(options.threads):
        if options.quick:
            with tempfile.TemporaryDirectory() as folder:
                return _tables(options, history, Runs(Path(folder)))
        return _tables(options, history, Runs())


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tables(options: argparse.Namespace, history: History, runs: Runs) -> int:
    rows, fresh = (
        [row for row in every if not options.rows or any(words in row.name for words in options.rows)]
        for every in (all_rows(), freshness_rows())
    )
    data_sets = [m for m in (QUICK if options.quick else DATA_SETS) if not options.only or m.name in options.only]
    for measured in data_sets:
        if not measured.is_present(options.data_root):
            print(f"{measured.title}: skipped, --data-root {options.data_root} has no folder of it", flush=True)
            continue
        loaded = measured.loaded(options.data_root)
        print(f"{measured.title}: data {loaded.digest}, ranked are {loaded.universe}", flush=True)
        for make in measured.protocols:
            _table(measured, loaded, make(loaded.data), rows, options, history, runs)
        for protocol in freshness_protocols(measured, loaded.data) if fresh else ():
            _table(measured, loaded, protocol, fresh, options, history, runs)
    return 0


class History:
    """The rows of the history file, to which those of new figures are appended at once; None keeps nothing.

    Figures are known by the run that they are of, its protocol, and the code that they come from, so other code writes them anew.
    With ``again``, they are written even if they are there.
    """

    def __init__(self, path: Path | None, *, again: bool = False) -> None:
        self._path, self._again = path, again
        lines = path.read_text("utf-8").splitlines() if path is not None else []
        self._known = {_name(row) for row in map(json.loads, lines) if "run" in row}

    def add(self, source: Source, rows: Iterable[HistoryRow]) -> None:
        """Appends figures, if they are not there."""
        name = _name(source.columns)
        if self._path is None or (name in self._known and not self._again):
            return
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
        self._known.add(name)


def _name(row: HistoryRow) -> tuple[object, ...]:
    return tuple(row.get(column) for column in ("data", "protocol", "model", "run", "code"))


def _table(
    measured: Measured,
    loaded: Loaded,
    protocol: Protocol,
    rows: Sequence[Row],
    options: argparse.Namespace,
    history: History,
    runs: Runs,
) -> None:
    test = protocol.test
    print(
        f"  {protocol.name}: {len(test):,} plays, {test.is_new_member().mean():.1%} of new members, "
        f"{test.is_new_item().mean():.1%} of new items; validation {len(protocol.validation):,} plays",
        flush=True,
    )
    if not options.quick:
        history.add(*asked_of(loaded, protocol))
    averaged: dict[str, tuple[Source, PlayValues]] = {}
    for row in rows:
        if not row.protocols(protocol.name) or not row.wants(measured.name):
            continue
        of_seeds: dict[int, PlayValues] = {}
        sources = []
        for number, seed in enumerate(row.seeds):
            may_run = not options.finished and number < (1 if options.quick else options.seeds or len(row.seeds))
            key = run_key(loaded, protocol, row, seed)
            answers = _answers(measured, loaded, protocol, row, seed, runs, key, options.again and may_run, may_run)
            if answers is None:
                continue
            of_seeds[seed] = values = figures.play_values(answers, loaded, protocol)
            sources.append(Source(loaded, protocol, row.name, seed, key, row_hash(row)))
            history.add(sources[-1], figures.history_rows(sources[-1], answers, values))
        if not of_seeds:
            continue
        whole = sources[0]
        if len(of_seeds) > 1:
            whole = Source(loaded, protocol, row.name, figures.MEAN, hashed(*(s.run for s in sources)), row_hash(row))
            history.add(whole, figures.mean_rows(whole, of_seeds))
        averaged[row.name] = whole, figures.mean_over_seeds(of_seeds)
    ours = [row.name for row in rows if row.is_ours and row.name in averaged]
    for name in ours:
        for other in averaged:
            if other not in (name, ORACLE, TOLD):
                (one, values), (two, theirs) = averaged[name], averaged[other]
                code = figures.pair_hash(one.code, two.code)
                pair = Source(loaded, protocol, name, figures.MEAN, hashed(one.run, two.run), code)
                history.add(pair, figures.compared_rows(pair, values, other, theirs))
    if options.quick:
        _check(protocol, {name: float(values["ndcg@10"].mean()) for name, (_, values) in averaged.items()})


def asked_of(loaded: Loaded, protocol: Protocol) -> tuple[Source, list[HistoryRow]]:
    """Counts the plays, members and ranked items of a protocol. Returns the counts as rows of the history."""
    test = protocol.test
    facts = {
        "plays": len(test),
        "members": len(np.unique(test.targets.member)),
        "plays of new members": float(test.is_new_member().mean()),
        "plays of new items": float(test.is_new_item().mean()),
        "items ranked": int(loaded.data.universe.sum()),
        "plays of the validation": len(protocol.validation),
    }
    source = Source(loaded, protocol, ASKED, 0, hashed(ASKED, *map(str, facts.values())), ASKED)
    return source, [source.columns | {"metric": name, "value": value} for name, value in facts.items()]


def _answers(
    measured: Measured,
    loaded: Loaded,
    protocol: Protocol,
    row: Row,
    seed: int,
    runs: Runs,
    key: str,
    again: bool,
    may_run: bool,
) -> Answers | None:
    """The run of a row: from the folder of runs, or made now. None where only finished runs are wanted and this is none."""
    began_s = time.perf_counter()
    answers = None if again else runs.read(key, len(protocol.test))
    if answers is None:
        if not may_run:
            return None
        answers = row.answer(measured, loaded, protocol, seed)
        runs.keep(key, answers)
    took = f"{time.perf_counter() - began_s:6.1f} s"
    shown = f"seed {seed}" if len(row.seeds) > 1 else ""
    gain = gains(answers.ranked.ranks).mean()
    print(f"    {row.name:44} {shown:7} NDCG@10 {gain:.4f}  {took}  {answers.note}".rstrip(), flush=True)
    return answers


#: On the small world, no row is below this NDCG@10 (a list drawn at random has 0.028), and no chain below that.
QUICK_BOUNDS = {"Markov": 0.15, "": 0.05}


def _check(protocol: Protocol, gain: Mapping[str, float]) -> None:
    """Raises: SystemExit for a row that is far below what it gives: it learns nothing, or ranks other items than it learned."""
    for name, value in gain.items():
        bound = next(bound for start, bound in QUICK_BOUNDS.items() if name.startswith(start))
        if not value >= bound:
            raise SystemExit(f"{protocol.name}, {name}: NDCG@10 is {value:.4f}, it has to be at least {bound}")


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
