"""How a bench measures a rate: from the topic's growth while the program is warm and still has plays to read."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench import rates
from tests.bench.rates import BenchFailed, Program, measure_rate

SLEEPS = ("-c", "import time; time.sleep(30)")


def program(tmp_path: Path, *arguments: str) -> Program:
    return Program(arguments or SLEEPS, tmp_path / "log", {}, python=sys.executable)


def growing(per_s: float, limit: float = float("inf")) -> Any:
    began_s = time.monotonic()
    return lambda: int(min(limit, per_s * (time.monotonic() - began_s)))


def test_the_rate_is_the_growth_in_the_window(tmp_path: Path) -> None:
    with program(tmp_path) as running:
        rate = measure_rate([running], growing(1000), skip=300, total=10**9, seconds=1.0)
    assert rate.plays_per_s == pytest.approx(1000, rel=0.05)
    assert 1.0 <= rate.seconds < 2.0


def test_what_is_answered_after_the_plays_run_out_is_left_out(tmp_path: Path) -> None:
    with program(tmp_path) as running:
        rate = measure_rate([running], growing(1000, limit=1000), skip=100, total=1000, seconds=20.0)
    assert rate.plays_per_s == pytest.approx(1000, rel=0.05)
    assert rate.seconds < 1.2


def test_a_program_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    with program(tmp_path, "-c", "raise SystemExit('no such topic')") as running, pytest.raises(BenchFailed) as failed:
        measure_rate([running], growing(0), skip=1, total=10, seconds=1.0)
    assert "no such topic" in str(failed.value)


def test_a_program_that_answers_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_STALLED_S", 0.3)
    with program(tmp_path) as running, pytest.raises(BenchFailed, match="0 answers of 5"):
        measure_rate([running], growing(0), skip=5, total=10, seconds=1.0)


def test_a_program_that_stops_answering_has_no_rate(tmp_path: Path) -> None:
    with program(tmp_path) as running, pytest.raises(BenchFailed, match="100 answers of 1000, then none"):
        measure_rate([running], growing(10**6, limit=100), skip=100, total=1000, seconds=0.5)


def test_few_plays_that_are_all_answered_at_once_are_taken_over_the_whole_run(tmp_path: Path) -> None:
    with program(tmp_path) as running:
        rate = measure_rate([running], growing(10**6, limit=100), skip=100, total=100, seconds=0.5)
    assert rate.plays_per_s > 0


def test_nothing_of_a_program_is_left_behind(tmp_path: Path) -> None:
    with program(tmp_path) as running:
        pass
    assert running.process.returncode is not None
