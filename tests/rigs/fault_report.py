"""The fault table: every test of a fault adds a line, printed when the session ends. A pytest plugin.

`make test-faults` runs each fault at its full scale and keeps the table as JSON lines; without `--full-faults` a shorter
selection runs, by the same code. Lines travel with the tests' reports, so that tests may run in several processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.verdict import Verdict

REPORT = Path(".intentrec") / "fault-report.jsonl"

#: Called as ``fault_row("kill -9 a worker", verdict, caught_up_s=12.3)``: once a fault, figures by name.
FaultRow = Callable[..., None]

_PROPERTY = "fault row"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-faults", action="store_true", help="run every fault at its full scale, not a selection")
    parser.addoption("--fault-report", type=Path, help=f"where the table of --full-faults goes, else to {REPORT}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Table(config), "fault table")


@pytest.fixture
def full_faults(request: pytest.FixtureRequest) -> bool:
    """Whether faults run at their full scale."""
    return bool(request.config.getoption("--full-faults"))


@pytest.fixture
def fault_row(request: pytest.FixtureRequest) -> FaultRow:
    """Adds a line to the report, then fails the test when the verdict does not hold: the figures are seen in any case."""

    def add(fault: str, verdict: Verdict | None = None, **figures: float | int | str) -> None:
        row = {"fault": fault, "test": request.node.name, **(verdict.figures() if verdict else {}), **figures}
        request.node.user_properties.append((_PROPERTY, row))
        if verdict is not None:
            assert verdict.holds, row

    return add


class _Table:
    """Gathers the rows where the reports arrive, which of xdist's processes is the first."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._rows += [
                {**row, "passed": report.passed} for name, row in report.user_properties if name == _PROPERTY
            ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._rows:
            return
        terminalreporter.section("faults")
        for line in report_lines(self._rows):
            terminalreporter.write_line(line)
        if self._config.getoption("--full-faults"):
            path = self._config.getoption("--fault-report") or self._config.rootpath / REPORT
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in self._rows))


def report_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows as people read them, two lines each."""
    for row in rows:
        figures = {name: value for name, value in row.items() if name not in ("fault", "test", "passed")}
        yield f"{'' if row['passed'] else 'FAILED: '}{row['fault']}"
        yield "    " + "  ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in figures.items())


def _shown(value: float | int | str) -> str:
    return (
        f"{value:,.2f}".rstrip("0").rstrip(".")
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else value
    )
