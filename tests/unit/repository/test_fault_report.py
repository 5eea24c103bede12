"""The fault table says what every test found, also of a test that failed, and from another process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
from tests.rigs.verdict import Verdict

GOOD = dict(plays=10, members=2, lost=0, twice=0, wrong_states=0, missing=0, unexpected=0, repeats=3, out_of_order=0)

def test_holds(fault_row):
    fault_row("a cut", Verdict(**GOOD), caught_up_s=12.345)

def test_does_not(fault_row):
    fault_row("a kill", Verdict(**(GOOD | {"lost": 1})))
"""


def test_every_fault_has_a_line(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(TESTS)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    result = pytester.runpytest_subprocess("-p", "tests.rigs.fault_report", "--full-faults", "-n", "1")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines_random(
        ["a cut", "*plays 10 *lost 0 *repeats 3 *caught up s 12.35*", "FAILED: a kill", "*lost 1 *"]
    )
    rows = [json.loads(line) for line in (pytester.path / ".intentrec" / "fault-report.jsonl").read_text().splitlines()]
    assert {row["fault"]: (row["passed"], row["lost"]) for row in rows} == {"a cut": (True, 0), "a kill": (False, 1)}
