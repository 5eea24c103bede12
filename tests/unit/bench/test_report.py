"""docs/benchmarks.md and docs/quality.md agree with the history."""

from __future__ import annotations

import pytest

from tests.bench import report
from tests.bench.bars import BARS, Bar
from tests.bench.harness import MEASURED


@pytest.mark.parametrize("name", [report.BENCHMARKS, report.QUALITY])
def test_a_document_is_what_the_history_says(name: str) -> None:
    text = (report.ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text == report.documents()[name], "run `make documents`"


def test_every_bench_whose_runs_are_kept_is_in_the_document() -> None:
    assert set(report.BENCHES) == set(report.FIGURES) == set(MEASURED)
    assert {bar.bench for bar in BARS} <= set(report.BENCHES)
    text = report.benchmarks()
    assert all(f"| {bar.what} |" in text for bar in BARS)


def test_the_newest_run_that_measured_a_figure_counts() -> None:
    rows = [{"speed": 3}, {"speed": [5, 1, 4]}, {"other": 9, "step": {"ms": 2.5}}]
    assert [value for _, value in report.measured(rows, "speed")] == [4.0, 3.0]
    assert [value for _, value in report.measured(rows, "step.ms")] == [2.5]
    assert report.measured(rows, "missing") == []


def test_a_bar_with_stalls_is_judged_by_the_worst_of_its_newest_runs() -> None:
    below = Bar("ratio", "latency", "a ratio", 1.5, True, worst_of=3)
    above = Bar("ratio", "latency", "a ratio", 1.5, worst_of=3)
    rows = [{"ratio": value} for value in (9, 0.1, 2.0, 0.7)]
    values = [value for _, value in report.measured(rows, "ratio")]
    assert values[below.counted(values)] == 2.0, "of the three newest; the oldest does not count"
    assert values[above.counted(values)] == 0.1
    assert report.is_met(below, rows) is False
    assert report.is_met(below, [*rows[:1], *[{"ratio": 1.4}] * 3]) is True
    assert report.is_met(below, rows[1:2]) is True, "fewer runs than three"
    assert report.is_met(below, []) is None
    assert report.is_met(Bar("ratio", "latency", "a ratio", 1.5, True), rows) is True, "the newest run alone"


def test_every_missed_bar_has_a_reason() -> None:
    missed = {bar.key for bar in BARS if report.is_met(bar, report.read_rows(bar.bench)) is False}
    assert missed <= set(report.WHY_MISSED) <= {bar.key for bar in BARS}
    text = report.benchmarks()
    assert text.count("- Missed: ") == text.count("**MISS**") == len(missed)


def test_every_figure_of_the_tables_was_measured() -> None:
    for bench, figures in report.FIGURES.items():
        rows = report.read_rows(bench)
        if not rows and bench == "gateway":  # new: its first row waits for a machine that does nothing else
            continue
        assert [key for key, _, _ in figures if not report.measured(rows, key)] == []


def test_a_quality_figure_names_its_origin() -> None:
    for row in report.read_rows("quality"):
        if "protocol" in row:  # of the table
            assert {"date", "commit", "data", "data_hash", "model", "seed", "metric", "run"} <= set(row)
            assert "value" in row or row["metric"] == "note"
            continue
        assert {"date", "commit", "source", "group", "figure", "value", "command"} <= set(row)
        assert list(report.DECISIONS.glob(f"{int(str(row['source'])):04}-*.md"))
