"""Runs mutants in copies of the tree and prints which test caught each: `python -m tests.mutants [WORDS] [--part K/N] [--resume]`

Outcomes are kept in .intentrec/mutants.jsonl as they come. With ``--resume`` a mutant is run again only when its sources, its
edits or its tests' files have changed since. At the end one table shows every mutant whose name holds all WORDS, whatever part
it is in. Before a part's mutants their tests run on the tree as it is: red there, they would prove nothing.

Exit code 0 when each mutant of the table is caught, 1 when one survived, no longer applies, keeps its tests from running, or has
not been run on these sources.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import DoesNotApply, Mutant
from tests.rigs.outcome_log import OutcomeLog, part_of

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".intentrec" / "mutants.jsonl"
#: Two cores do; a mutant's tests are one process.
_NUM_AT_ONCE = 2
#: A mutant can make a test hang. Far more than the slowest needs on an idle machine.
_DEADLINE_S = 900
#: All tests of all mutants of a part, one after another.
_TREE_AS_IT_IS_DEADLINE_S = 3600
_FAILED = re.compile(r"^FAILED (?:[\w.]+/)*(.+?)( - .*)?$", re.MULTILINE)
_TESTS_FAILED = 1  # pytest's exit code; above it nothing was tested


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant. ``caught_by`` is None where no test failed."""

    caught_by: str | None
    seconds: float
    trouble: str = ""


#: Runs tests in a tree, for so many seconds at most: pytest's exit code, what it printed, the seconds it took.
RunTests = Callable[[Path, Sequence[str], float], tuple[int, str, float]]


def main(arguments: Sequence[str], run_tests: RunTests | None = None) -> int:
    """See the module; ``run_tests`` stands for pytest."""
    options = _options(arguments)
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in options.words)]
    if not chosen:
        print(f"no mutant's name holds {' '.join(options.words)}", file=sys.stderr)
        return 1
    log = OutcomeLog(STATE)
    due = list(part_of(chosen, options.part))
    if options.resume:
        due = [mutant for mutant in due if _outcome(mutant, ROOT, log) is None]
    print(f"{len(due)} of {len(chosen)} mutants to be run", flush=True)
    if due and not run_mutants(due, ROOT, log, run_tests or _pytest):
        return 1
    return print_table(chosen, ROOT, log)


def run_mutants(mutants: Sequence[Mutant], root: Path, log: OutcomeLog, run_tests: RunTests) -> bool:
    """Runs mutants of the tree at ``root`` and keeps each outcome; False when their tests fail without a mutant."""
    with tempfile.TemporaryDirectory(prefix="intentrec-mutants-") as folder:
        trees = [Path(folder, f"tree{number}") for number in range(_NUM_AT_ONCE)]
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            _copy_tree(root, tree)
            free.put(tree)
        tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        code, output, seconds = run_tests(trees[0], tests, _TREE_AS_IT_IS_DEADLINE_S)
        if code != 0:
            print(output, file=sys.stderr)
            print("the tests fail on the tree as it is: mutants would prove nothing", file=sys.stderr)
            return False
        print(f"{len(tests)} tests or files pass on the tree as it is ({seconds:.0f} s)", flush=True)
        # Of the copy: who goes on with the tree meanwhile changes nothing of what was tested.
        keys = {mutant.name: mutant.key(trees[0]) for mutant in mutants}
        with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
            running = {pool.submit(_run, mutant, free, run_tests): mutant for mutant in mutants}
            for done in as_completed(running):
                mutant, outcome = running[done], done.result()
                log.add(mutant.name, keys[mutant.name], asdict(outcome))
                print(_line(mutant, outcome), flush=True)
    return True


def print_table(mutants: Sequence[Mutant], root: Path, log: OutcomeLog) -> int:
    """Every mutant with its last outcome on these sources; returns the exit code."""
    outcomes = {mutant: _outcome(mutant, root, log) for mutant in mutants}
    print("\n" + "\n".join(_line(mutant, outcome) for mutant, outcome in outcomes.items()))
    found = {mutant: outcome for mutant, outcome in outcomes.items() if outcome is not None}
    survivors = {mutant: outcome for mutant, outcome in found.items() if outcome.caught_by is None}
    total_s = sum(outcome.seconds for outcome in found.values())
    print(
        f"{len(found) - len(survivors)} of {len(mutants)} mutants caught, {len(survivors)} not caught, "
        f"{len(mutants) - len(found)} not run on these sources; {total_s:.0f} s of tests"
    )
    for mutant, outcome in survivors.items():
        print(f"\n--- {mutant.name}\n{outcome.trouble or 'SURVIVED: no test failed'}", file=sys.stderr)
    return 1 if survivors or len(found) < len(mutants) else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="of the mutants' names: those that hold all of them")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="run only the K-th of N parts")
    parser.add_argument("--resume", action="store_true", help="run only what has no outcome on these sources yet")
    return parser.parse_args(arguments)


def _outcome(mutant: Mutant, root: Path, log: OutcomeLog) -> Outcome | None:
    found = log.find(mutant.name, mutant.key(root))
    return None if found is None else Outcome(**found)


def _line(mutant: Mutant, outcome: Outcome | None) -> str:
    seconds = "        " if outcome is None else f"{outcome.seconds:6.1f} s"
    result = "not run" if outcome is None else outcome.caught_by or "NOT CAUGHT"
    return f"{seconds}  {mutant.name:<75} {result}"


def _run(mutant: Mutant, free: SimpleQueue[Path], run_tests: RunTests) -> Outcome:
    """Runs a mutant's tests in a tree that is free. Trees are used again: what numba compiled is kept by path."""
    started_s = time.monotonic()
    tree = free.get()
    try:
        with _applied(mutant, tree):
            code, output, _ = run_tests(tree, mutant.tests, _DEADLINE_S)
    except DoesNotApply as error:
        return Outcome(None, 0.0, str(error))
    finally:
        free.put(tree)
    failed = _FAILED.findall(output)
    seconds = time.monotonic() - started_s
    if code == _TESTS_FAILED and failed:
        return Outcome(failed[0][0], seconds)
    return Outcome(None, seconds, "" if code == 0 else f"pytest ended with {code}:\n{output[-3000:]}")


@contextmanager
def _applied(mutant: Mutant, tree: Path) -> Iterator[None]:
    """A tree with a mutant in it; afterwards its sources are as they were, their times too: caches go by them.

    Raises: DoesNotApply.
    """
    changed = mutant.apply(tree)
    before = {path: (path.read_bytes(), path.stat()) for path in changed}
    try:
        for path, source in changed.items():
            path.write_text(source)
        yield
    finally:
        for path, (source_bytes, stat) in before.items():
            path.write_bytes(source_bytes)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _pytest(tree: Path, tests: Sequence[str], deadline_s: float) -> tuple[int, str, float]:
    started_s = time.monotonic()
    # Which example is the smallest does not matter here: "mutants" is a Hypothesis profile that does not shrink.
    environment = os.environ | {"PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": "mutants", "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rf", "--tb=short", "--no-header", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, "--show-capture=no", *tests],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_s,
        )
    except subprocess.TimeoutExpired as expired:
        return -1, f"the tests do not end: {expired}", time.monotonic() - started_s
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started_s


def _copy_tree(root: Path, target: Path) -> None:
    """The working tree as it is, but for what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = root / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
