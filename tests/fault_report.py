"""The fault table: every test of a fault adds a line, printed when the session ends and kept as JSON lines. A pytest plugin.

`make test-faults` runs each fault at its full scale; without `--full-faults` a shorter selection runs, by the same code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.verdict import Verdict

REPORT = Path(".intentrec") / "fault-report.jsonl"

#: Called as ``fault_row("kill -9 a worker", verdict, caught_up_s=12.3)``: once a fault, figures by name.
FaultRow = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-faults", action="store_true", help="run every fault at its full scale, not a selection")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # of xdist's processes only the first one empties it
        _path(session.config).unlink(missing_ok=True)


@pytest.fixture
def full_faults(request: pytest.FixtureRequest) -> bool:
    """Whether faults run at their full scale."""
    return bool(request.config.getoption("--full-faults"))


@pytest.fixture
def fault_row(request: pytest.FixtureRequest) -> FaultRow:
    """Adds a line to the report, then fails the test when the verdict does not hold: the figures are seen in any case."""

    def add(fault: str, verdict: Verdict | None = None, **figures: float | int | str) -> None:
        row = {"fault": fault, "test": request.node.name, **(verdict.figures() if verdict else {}), **figures}
        path = _path(request.config)
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as report:
            report.write(json.dumps(row) + "\n")
        if verdict is not None:
            assert verdict.holds, row

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    path = _path(config)
    if not path.exists():
        return
    terminalreporter.section("faults")
    for line in path.read_text().splitlines():
        row = json.loads(line)
        fault, _ = row.pop("fault"), row.pop("test")
        shown = "  ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in row.items())
        terminalreporter.write_line(f"{fault}\n    {shown}")


def _path(config: pytest.Config) -> Path:
    return config.rootpath / REPORT


def _shown(value: float | int | str) -> str:
    return (
        f"{value:,.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else value
    )
