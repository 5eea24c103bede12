"""Runs every fault at its full scale, a file of tests at a time: `python -m tests.faults [WORDS] [--part K/N] [--resume]`.

What each file came to is kept in .intentrec/faults.jsonl as it comes, with its rows of the fault table. With ``--resume`` a file
is run again only when it failed, or when any source has changed since. A file fails if all its tests were skipped. At the end one
table shows every file whose name holds all WORDS, whatever part it is in; its rows are written to .intentrec/fault-report.jsonl.

Exit code 0 when each file of the table passed, 1 when one failed or has not been run on these sources.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.rigs.fault_report import REPORT, report_lines
from tests.rigs.outcome_log import OutcomeLog, part_of, source_key

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".intentrec" / "faults.jsonl"
#: What stands elsewhere belongs to another subject, and is a fault all the same.
ELSEWHERE = (
    "tests/integration/test_refusals.py",
    "tests/property/test_every_await_can_fail.py",
    "tests/property/test_delivery_machine.py",
)
#: Which Apache Kafka they run on.
KAFKA = "deploy/kafka/pom.xml"
#: Far more than the slowest file needs on an idle machine; its tests have time limits of their own.
_DEADLINE_S = 5400
#: Of what a file that failed has printed.
_KEPT_CHARACTERS = 4000
#: In pytest's last line.
_PASSED, _SKIPPED = re.compile(r"\b\d+ passed\b"), re.compile(r"\b(\d+) skipped\b")

#: Runs a file of tests and writes its rows to a file: pytest's exit code, and what it printed.
RunFile = Callable[[str, Path], tuple[int, str]]


def main(arguments: Sequence[str], run_file: RunFile | None = None) -> int:
    """See the module; ``run_file`` stands for pytest."""
    options = _options(arguments)
    files = [file for file in fault_files(ROOT) if all(word in file for word in options.words)]
    if not files:
        print(f"no file of faults has {' '.join(options.words)} in its name", file=sys.stderr)
        return 1
    log, key = OutcomeLog(STATE), sources(ROOT)
    due = [file for file in part_of(files, options.part) if not options.resume or not _passed(log.find(file, key))]
    print(f"{len(due)} of {len(files)} files to be run", flush=True)
    run_files(due, log, key, run_file or _pytest)
    return print_table(files, log, key, ROOT / REPORT)


def fault_files(root: Path) -> list[str]:
    """Every file of the fault table."""
    return [str(path.relative_to(root)) for path in sorted((root / "tests" / "faults").glob("test_*.py"))] + [
        *ELSEWHERE
    ]


def sources(root: Path) -> str:
    """What an outcome depends on, as a hash: every source of the product and of these tests."""
    of_tests = ("faults", "integration", "property", "rigs", "worlds")
    packages = ["intentrec_core", "index", "stream", *(f"tests/{name}" for name in of_tests)]
    files = [path for name in packages for path in (root / name).rglob("*") if path.suffix in (".py", ".toml", ".json")]
    return source_key(
        [*files, *(root / name for name in ("tests/conftest.py", "pyproject.toml", "deploy/locks/dev.txt", KAFKA))]
    )


def run_files(files: Sequence[str], log: OutcomeLog, key: str, run_file: RunFile) -> None:
    """Runs files one after another and keeps what each came to."""
    for file in files:
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="intentrec-faults-") as folder:
            report = Path(folder, "report.jsonl")
            code, output = run_file(file, report)
            rows = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        skipped = sum(map(int, _SKIPPED.findall(output)))
        passed = code == 0 and bool(_PASSED.search(output))  # not where every test was skipped
        outcome: dict[str, Any] = {
            "passed": passed, "skipped": skipped, "seconds": time.monotonic() - began_s, "rows": rows
        }  # fmt: skip
        if not passed:
            outcome["output"] = output[-_KEPT_CHARACTERS:]
        log.add(file, key, outcome)
        print(_line(file, outcome), flush=True)


def print_table(files: Sequence[str], log: OutcomeLog, key: str, report: Path) -> int:
    """Every file with its rows, as they were found on these sources; returns the exit code."""
    outcomes = {file: log.find(file, key) for file in files}
    rows = [row for outcome in outcomes.values() if outcome for row in outcome["rows"]]
    print()
    for file, outcome in outcomes.items():
        print(_line(file, outcome))
        for line in report_lines(outcome["rows"] if outcome else []):
            print(f"    {line}")
        if outcome and not outcome["passed"]:
            print(f"--- {file}\n{outcome['output']}", file=sys.stderr)
    num_passed = sum(map(_passed, outcomes.values()))
    num_run = sum(outcome is not None for outcome in outcomes.values())
    print(
        f"{num_passed} of {len(files)} files passed, {num_run - num_passed} failed, "
        f"{len(files) - num_run} not run on these sources; {len(rows)} rows in {report}"
    )
    report.parent.mkdir(exist_ok=True)
    report.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return 0 if num_passed == len(files) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="of the files' names: those that hold all of them")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="run only the K-th of N parts")
    parser.add_argument("--resume", action="store_true", help="run only what has not passed on these sources yet")
    return parser.parse_args(arguments)


def _passed(outcome: dict[str, Any] | None) -> bool:
    return outcome is not None and outcome["passed"]


def _line(file: str, outcome: dict[str, Any] | None) -> str:
    if outcome is None:
        return f"{'':8}  {file:<60} not run"
    skipped = f", {outcome['skipped']} skipped" if outcome["skipped"] else ""
    return f"{outcome['seconds']:6.0f} s  {file:<60} {'passed' if outcome['passed'] else 'FAILED'}{skipped}"


def _pytest(file: str, report: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "--full-faults", f"--fault-report={report}", file]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DEADLINE_S
        )
    except subprocess.TimeoutExpired as expired:
        return -1, f"the tests do not end: {expired}"
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
