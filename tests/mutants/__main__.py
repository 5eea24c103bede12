"""Runs every mutant in a copy of the tree and prints which test caught it: `python -m tests.mutants [WORDS OF A NAME ...]`.

Exit code 0 when each is caught, 1 when one survives, no longer applies, or keeps the tests from running. First the tests run on
the tree as it is: red there, they would prove nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.delivery import DELIVERY
from tests.mutants.device import DEVICE
from tests.mutants.folding import FOLD_RULES
from tests.mutants.liveness import LIVENESS
from tests.mutants.migration import MIGRATION
from tests.mutants.mutant import DoesNotApply, Mutant
from tests.mutants.partition_tasks import PARTITION_TASKS
from tests.mutants.poison import POISON
from tests.mutants.prefill import PREFILL
from tests.mutants.repair import REPAIR
from tests.mutants.state import STATE

MUTANTS = (*DELIVERY, *PREFILL, *PARTITION_TASKS, *LIVENESS, *STATE, *FOLD_RULES, *REPAIR, *POISON, *DEVICE, *MIGRATION)
ROOT = Path(__file__).parents[2]
#: Two cores do; a mutant's tests are one process.
_NUM_AT_ONCE = 2
#: A mutant can make a test hang. Far more than the slowest needs on an idle machine.
_DEADLINE_S = 900
_FAILED = re.compile(r"^FAILED (?:[\w.]+/)*(.+?)( - .*)?$", re.MULTILINE)
_TESTS_FAILED = 1  # pytest's exit code; above it nothing was tested


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant. ``caught_by`` is None where no test failed."""

    mutant: Mutant
    caught_by: str | None
    seconds: float
    trouble: str = ""


def main(words: Sequence[str]) -> int:
    """Runs the mutants whose names hold all of ``words``."""
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in words)]
    if not chosen:
        print(f"no mutant's name holds {' '.join(words)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="intentrec-mutants-") as folder:
        trees = [Path(folder, f"tree{number}") for number in range(_NUM_AT_ONCE)]
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            _copy_tree(tree)
            free.put(tree)
        tests = list(dict.fromkeys(test for mutant in chosen for test in mutant.tests))
        code, output, seconds = _pytest(trees[0], tests)
        if code != 0:
            print(output, file=sys.stderr)
            print("the tests fail on the tree as it is: mutants would prove nothing", file=sys.stderr)
            return 1
        print(
            f"{len(tests)} tests or files pass on the tree as it is ({seconds:.0f} s); {len(chosen)} mutants",
            flush=True,
        )
        with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
            outcomes = []
            for outcome in pool.map(lambda mutant: _run(mutant, free), chosen):
                outcomes.append(outcome)
                print(_line(outcome), flush=True)
    survivors = [outcome for outcome in outcomes if outcome.caught_by is None]
    total_s = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} mutants caught, {total_s:.0f} s of tests")
    for outcome in survivors:
        print(f"\n--- {outcome.mutant.name}\n{outcome.trouble or 'SURVIVED: no test failed'}", file=sys.stderr)
    return 1 if survivors else 0


def _line(outcome: Outcome) -> str:
    return f"{outcome.seconds:6.1f} s  {outcome.mutant.name:<60} {outcome.caught_by or 'NOT CAUGHT'}"


def _run(mutant: Mutant, free: SimpleQueue[Path]) -> Outcome:
    """Runs a mutant's tests in a tree that is free. Trees are used again: what numba compiled is kept by path."""
    started_s = time.monotonic()
    tree = free.get()
    try:
        with _applied(mutant, tree):
            code, output, _ = _pytest(tree, mutant.tests)
    except DoesNotApply as error:
        return Outcome(mutant, None, 0.0, str(error))
    finally:
        free.put(tree)
    failed = _FAILED.findall(output)
    seconds = time.monotonic() - started_s
    if code == _TESTS_FAILED and failed:
        return Outcome(mutant, failed[0][0], seconds)
    return Outcome(mutant, None, seconds, "" if code == 0 else f"pytest ended with {code}:\n{output[-3000:]}")


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


def _pytest(tree: Path, tests: Sequence[str]) -> tuple[int, str, float]:
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
            timeout=_DEADLINE_S,
        )
    except subprocess.TimeoutExpired as expired:
        return -1, f"the tests do not end: {expired}", time.monotonic() - started_s
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started_s


def _copy_tree(target: Path) -> None:
    """The working tree as it is, but for what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
