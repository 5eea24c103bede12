"""A process that is stopped ends in order, or by force with its current exit code; never later than its deadline."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PROCESS = """
import asyncio, sys, threading, time
from types import SimpleNamespace
from stream.ops.process_end import run_until_signal


class Process:
    settings = SimpleNamespace(drain_deadline_s=float(sys.argv[1]))
    exit_code = 9
    stopped = False

    def stop(self):
        self.stopped = True

    async def run(self):
        print("running", flush=True)
        while not self.stopped:
            await asyncio.sleep(0.01)
        self.on_ending()
        if sys.argv[2] == "loop hangs":
            time.sleep(60)
        self.exit_code = 0 if sys.argv[2] == "in order" else 6
        if sys.argv[2] == "a thread hangs":
            threading.Thread(target=time.sleep, args=[60]).start()


asyncio.run(run_until_signal(Process()))
print("done", flush=True)
"""


def stop(drain_deadline_s: float, how: str, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, float]:
    """Exit code, output and seconds from the signal to the end."""
    command = [sys.executable, "-c", PROCESS, str(drain_deadline_s), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        started_s = time.monotonic()
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
        return process.returncode, out, time.monotonic() - started_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_order(number: signal.Signals) -> None:
    code, out, _ = stop(20, "in order", number)
    assert (code, out) == (0, "done\n")


@pytest.mark.parametrize(("how", "code", "out"), [("loop hangs", 9, ""), ("a thread hangs", 6, "done\n")])
def test_what_hangs_is_ended_at_the_deadline_with_the_code_it_has_reached(how: str, code: int, out: str) -> None:
    ended = stop(0.3, how)
    assert ended[:2] == (code, out)
    assert 0.2 < ended[2] < 20
