"""docs/benchmarks.md and docs/quality.md agree with the history."""

from __future__ import annotations

import pytest

from tests.bench import report
from tests.bench.bars import BARS
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
