"""The training run as a child process: however it ends, the trainer gets a result and no process is left running."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from stream.ops.metrics import TrainerOutcome
from stream.trainer import retrain_process
from stream.trainer.retrain_job import RetrainJob
from stream.trainer.retrain_process import run_retrain

ANSWER = """
import sys
sys.stdin.buffer.readline()
print("a line of somebody else's")
print('{"outcome": "gated", "detail": "worse", "reason": "worse_items"}')
"""
FAULT = """
import sys
from stream.trainer.retrain import main
def run(job):
    raise ZeroDivisionError("by\\nzero")
sys.exit(main(run))
"""
PID = """
import os, pathlib, sys, time
sys.stdin.buffer.readline()
pathlib.Path({path!r}).write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path: Path) -> RetrainJob:
    return RetrainJob(
        event_log_dir="", topic="", domain="", bundle_url="", cache_dir=str(tmp_path), running=(), catalogue=None,
        device="cpu", budget_s=1.0, min_plays=1, max_plays=1, gate_margin=0.0,
    )  # fmt: skip


def test_the_last_line_is_the_result(job: RetrainJob) -> None:
    result = asyncio.run(run_retrain(job, (sys.executable, "-c", ANSWER)))
    assert (result.outcome, result.detail, result.reason) == (TrainerOutcome.GATED, "worse", "worse_items")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("print('nonsense')", "without a result"),
        ("pass", "without a result"),
    ],
)
def test_a_run_that_ends_badly_is_a_failed_run(job: RetrainJob, script: str, says: str) -> None:
    result = asyncio.run(run_retrain(job, (sys.executable, "-c", script)))
    assert result.outcome is TrainerOutcome.FAILED
    assert says in result.detail


def test_a_fault_in_a_run_is_its_result_and_its_traceback_is_logged(
    job: RetrainJob, capfd: pytest.CaptureFixture[str]
) -> None:
    result = asyncio.run(run_retrain(job, (sys.executable, "-c", FAULT)))
    assert result.outcome is TrainerOutcome.FAILED
    assert "internal error (please report): ZeroDivisionError('by" in result.detail
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_a_command_that_is_not_there_is_a_failed_run(job: RetrainJob) -> None:
    assert asyncio.run(run_retrain(job, ("/no/such/python",))).outcome is TrainerOutcome.FAILED


def test_a_run_that_hangs_is_killed_at_its_deadline(
    job: RetrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain_process, "deadline_s", lambda budget_s: 2.0)
    path = tmp_path / "pid"
    result = asyncio.run(run_retrain(job, (sys.executable, "-c", PID.format(path=str(path)))))
    assert "killed after 2 s" in result.detail
    assert not alive(path)


def test_a_cancelled_run_is_killed_before_the_call_returns(job: RetrainJob, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    async def scenario() -> None:
        run = asyncio.create_task(run_retrain(job, (sys.executable, "-c", PID.format(path=str(path)))))
        while not (path.exists() and path.read_text()):
            await asyncio.wait({run}, timeout=0.05)
        began_s = time.monotonic()
        run.cancel()
        await asyncio.wait({run})
        assert run.cancelled()
        assert time.monotonic() - began_s < 2.0

    asyncio.run(scenario())
    assert not alive(path)


def alive(path: Path) -> bool:
    try:
        os.kill(int(path.read_text()), 0)
    except ProcessLookupError:
        return False
    return True
