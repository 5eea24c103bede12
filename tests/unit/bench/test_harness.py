"""The benches' own rules: bars, rounds in turns, the command, and the capacity model's arithmetic."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from intentrec_core.errors import ConfigError
from tests.bench import bench_capacity, bench_engine, harness
from tests.bench.__main__ import run
from tests.bench.bars import BARS, Bar, table
from tests.bench.harness import BenchOptions, Timing, in_turns
from tests.bench.report import read_rows


def test_a_bar_is_passed_on_its_own_side() -> None:
    least, most = Bar("a", "engine", "", 2.0), Bar("b", "engine", "", 2.0, at_most=True)
    assert [least.passed(value) for value in (1.9, 2.0, 2.1)] == [False, True, True]
    assert [most.passed(value) for value in (1.9, 2.0, 2.1)] == [True, True, False]
    assert not most.passed(-0.1), "a difference that noise made negative"


def test_the_table_says_pass_miss_or_that_it_was_not_measured() -> None:
    lines = table({"engine_speedup_256": 50.0, "engine_kv_read_over_bandwidth": 1.6}, "engine")
    assert [line.split()[0] for line in lines] == ["PASS", "MISS", *["not"] * 8]


def test_every_bar_has_a_bench_and_every_bench_a_measure() -> None:
    assert {bar.bench for bar in BARS} <= set(harness.BENCHES)
    for name in harness.BENCHES:
        assert callable(importlib.import_module(f"tests.bench.bench_{name}").measure)


def test_rounds_go_in_turns_after_the_warm_up() -> None:
    calls: list[str] = []
    timing = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    assert timing.keys() == {"a", "b"}
    assert Timing.of([3.0, 1.0, 2.0]) == Timing(2.0, 3.0)


def test_the_command_names_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nothing"]) == ConfigError.exit_code
    assert "there are: engine" in capsys.readouterr().err
    assert run(["capacity", "--set", "members"]) == ConfigError.exit_code
    assert "NAME=NUMBER" in capsys.readouterr().err
    assert run(["engine", "--only", "speedpu"]) == ConfigError.exit_code
    assert "'speedpu'; it has: speedup" in capsys.readouterr().err
    assert run(["recovery", "--only", "users"]) == ConfigError.exit_code
    assert run(["engine", "--set", "members=2"]) == ConfigError.exit_code


def test_a_run_ends_with_one_line_of_json_and_a_row_of_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "HISTORY", tmp_path)
    monkeypatch.setattr(bench_engine, "measure", lambda options: {"engine_speedup_256": 44.0})
    harness.run("engine", BenchOptions(), compare=True)
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[0] == "MISS"
    assert (tmp_path / "engine.jsonl").read_text().splitlines() == [out[-1]]
    assert '"only"' not in out[-1]
    harness.run("engine", BenchOptions(only=("speedup",)), compare=False)
    assert '"only": ["speedup"]' in (tmp_path / "engine.jsonl").read_text().splitlines().pop(1)
    (tmp_path / "engine.jsonl").write_text(out[-1] + "\n")
    harness.run("engine", BenchOptions(quick=True), compare=False)
    assert len((tmp_path / "engine.jsonl").read_text().splitlines()) == 1, "a quick run is no figure"


def test_the_engine_is_measured_from_end_to_end() -> None:
    figures = bench_engine.measure(BenchOptions(quick=True, only=("bandwidth", "small")))
    assert {"engine_kv_read_over_bandwidth", "step_ms_of_1", "memory_gb_per_s"} <= figures.keys()
    assert "engine_speedup_256" not in figures


#: Given, so that what the newest row of a history says decides nothing here.
MEASURED_ON_A_CORE = {
    "inference_plays_per_core_s": 6_500.0,
    "delivery_plays_per_core_s": 25_500.0,
    "restore_plays_per_s": 1e6,
    "changelog_bytes": 166.0,
    "history_bytes_per_play": 31.0,
    "gpu_plays_per_s": 2.1e6,
    "kv_bytes_per_play": 5_126.0,
    "small_kv_bytes_per_play": 366.0,
}
CPU, CPU_SMALL = bench_capacity.SYSTEMS["cpu"], bench_capacity.SYSTEMS["cpu_small"]


def test_capacity_follows_its_inputs() -> None:
    inputs, _ = bench_capacity.load_inputs(MEASURED_ON_A_CORE)
    once = bench_capacity.plan(inputs, CPU)
    twice = bench_capacity.plan({**inputs, "plays_per_s": 2 * inputs["plays_per_s"]}, CPU)
    assert twice.figures["network_in_gb_s"] == 2 * once.figures["network_in_gb_s"]
    assert twice.figures["brokers"] > once.figures["brokers"]
    small = bench_capacity.plan(inputs, CPU_SMALL)
    assert small.figures["kv_tb"] == pytest.approx(366 / 5_126 * once.figures["kv_tb"])
    assert small.figures["workers"] < once.figures["workers"]
    gpu = bench_capacity.plan({**inputs, "kv_room": 9.0}, bench_capacity.SYSTEMS["gpu"])
    assert gpu.figures["kv_kb_per_member"] == pytest.approx(256 * 4 / 3 * 2_560 / 1_000)
    assert once.figures["kv_kb_per_member"] == pytest.approx(256 * 8 / 7 * 5_126 / 1_000)
    forgetful = bench_capacity.plan({**inputs, "members": 1e6}, CPU)
    assert forgetful.figures["kv_tb"] < once.figures["kv_tb"]
    assert forgetful.walls[0][0] > once.walls[0][0]


def test_what_capacity_takes_for_measured_a_bench_measures() -> None:
    assert MEASURED_ON_A_CORE.keys() == bench_capacity.MEASURED.keys()
    for name, (bench, key) in bench_capacity.MEASURED.items():
        assert any(key in row for row in read_rows(bench)), name


def test_a_lost_worker_s_plays_wait_until_its_partitions_are_restored() -> None:
    inputs, _ = bench_capacity.load_inputs({**MEASURED_ON_A_CORE, "plays_per_s": 1e5, "members": 1e6})
    made = bench_capacity.plan(inputs, CPU)
    lost = bench_capacity.lose_a_worker(inputs, made)
    assert lost["caught_up_s"] >= lost["stalled_s"] >= inputs["session_timeout_s"]
    slower = bench_capacity.lose_a_worker({**inputs, "headroom": 0.6}, made)
    assert lost["caught_up_s"] < slower["caught_up_s"] < float("inf")
    assert bench_capacity.lose_a_worker({**inputs, "headroom": 0.8}, made)["caught_up_s"] == float("inf")


@pytest.mark.parametrize("wrong", [{"nothing": 1.0}, {"members": 0.0}, {"members": float("nan")}])
def test_an_input_that_makes_no_sense_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        bench_capacity.load_inputs(wrong)
