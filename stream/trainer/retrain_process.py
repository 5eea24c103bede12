"""Runs a training run as a child process, which can be killed at any moment.

The child reads its job from standard input and writes its result as one line to standard output; its log goes to this process's
standard error. The child ends when this process ends, even by SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stream.ops.child_guard import guarded
from stream.ops.children import child_environment
from stream.ops.metrics import TrainerOutcome
from stream.trainer.retrain_job import RetrainJob, RetrainResult

COMMAND = (sys.executable, "-m", "stream.trainer.retrain")
#: Folder under the cache for the child's temporary files. Emptied before each run, because a killed run leaves its files.
SCRATCH = "retraining"
#: Training yields the CPU to the trainer: a late bundle costs less than a lagging event log.
_NICENESS = 5
#: Time besides training: imports (20 s on a cold disk), reading the log, the gate, building the index, the store.
_RUN_PER_BUDGET, _OVERHEAD_S = 3.0, 180.0


def deadline_s(budget_s: float) -> float:
    """Seconds after its start at which a run is killed: training stops within its budget, so a longer run hangs."""
    return _RUN_PER_BUDGET * budget_s + _OVERHEAD_S


async def run_retrain(job: RetrainJob, command: Sequence[str] = COMMAND) -> RetrainResult:
    """Runs a job to its end. If cancelled, kills the child before returning.

    Raises: nothing from the run itself: a child that crashes, is killed or takes too long gives a failed result.
    """
    scratch = _scratch(job)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        process = await _start(command, scratch)
    except OSError as error:
        return _failed(f"the training process cannot be started: {error}")
    try:
        async with asyncio.timeout(deadline_s(job.budget_s)):
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(ConnectionError):  # it died; its exit code says so
                process.stdin.write(msgspec.json.encode(job) + b"\n")  # stays open: the child exits when it closes
                await process.stdin.drain()
            output = await process.stdout.read()
            code = await process.wait()
    except TimeoutError:
        return _failed(f"killed after {deadline_s(job.budget_s):.0f} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                process.kill()
            await process.wait()
    return _result(output, code)


def _scratch(job: RetrainJob) -> Path:
    return Path(job.cache_dir).expanduser() / SCRATCH


async def _start(command: Sequence[str], scratch: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *guarded(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=child_environment(TMPDIR=str(scratch)),
    )
    with contextlib.suppress(OSError):  # a lower priority is a courtesy, or the process has ended
        os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
    return process


def _result(output: bytes, code: int) -> RetrainResult:
    lines = output.splitlines()
    if code == 0 and lines:
        with contextlib.suppress(msgspec.DecodeError):  # no result: reported below
            return msgspec.json.decode(lines[-1], type=RetrainResult)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return _failed(f"the training process ended without a result ({how}); see its log")


def _failed(detail: str) -> RetrainResult:
    return RetrainResult(outcome=TrainerOutcome.FAILED, detail=detail)
