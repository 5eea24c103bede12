"""Starts a training run as a child process, waits for its result, and can end it at any moment.

The child gets its job on standard input and answers with one line on standard output; what it logs goes where ours goes.
It ends with this process, however that ends.
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

from stream.ops.metrics import TrainerOutcome
from stream.trainer.retrain_job import RetrainJob, RetrainResult

_TREE = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "stream.trainer.retrain")
#: Folder of the child's temporary files, under the cache: emptied before each run, because a killed one leaves its own.
SCRATCH = "retraining"
#: A late bundle is cheaper than plays that are followed late.
_NICENESS = 5
#: Besides learning: imports (20 s on a cold disk), reading the log, the gate, the index, the store.
_RUN_PER_BUDGET, _OVERHEAD_S = 3.0, 180.0


def deadline_s(budget_s: float) -> float:
    """When a run is killed, seconds after its start: it learns within its budget, so past this it hangs."""
    return _RUN_PER_BUDGET * budget_s + _OVERHEAD_S


async def run_retrain(job: RetrainJob, command: Sequence[str] = COMMAND) -> RetrainResult:
    """Runs a job to its end; cancelled, it kills the child before it returns.

    Raises: nothing of the run: a child that crashed, was killed or took too long is a result that failed.
    """
    scratch = _scratch(job)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        process = await _start(command, scratch)
    except OSError as error:
        return _failed(f"cannot be started: {error}")
    try:
        async with asyncio.timeout(deadline_s(job.budget_s)):
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(ConnectionError):
                process.stdin.write(msgspec.json.encode(job) + b"\n")  # left open: its end tells the child to end
                await process.stdin.drain()
            said = await process.stdout.read()
            code = await process.wait()
    except TimeoutError:
        return _failed(f"killed after {deadline_s(job.budget_s):.0f} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _result(said, code)


def _scratch(job: RetrainJob) -> Path:
    return Path(job.cache_dir).expanduser() / SCRATCH


async def _start(command: Sequence[str], scratch: Path) -> asyncio.subprocess.Process:
    guard = [sys.executable, "-I", "-S", str(_TREE / "ops" / "child_guard.py"), str(os.getpid())]
    # This tree's packages, wherever the working folder is and whatever else is installed.
    paths = [str(_TREE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await asyncio.create_subprocess_exec(
        *guard,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(scratch)},
    )
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
    return process


def _result(said: bytes, code: int) -> RetrainResult:
    lines = said.splitlines()
    if code == 0 and lines:
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(lines[-1], type=RetrainResult)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return _failed(f"ended without a result ({how}); its log says why")


def _failed(detail: str) -> RetrainResult:
    return RetrainResult(outcome=TrainerOutcome.FAILED, detail=detail)
