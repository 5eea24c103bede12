"""A process that is stopped ends in order, or by force with its current exit code; never later than its deadline, and with 0
where it has not begun.
"""

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
        if sys.argv[2] == "a thread waits":
            threading.Thread(target=sys.stdin.readline).start()


process = Process()
asyncio.run(run_until_signal(process))
print("done", flush=True)
if sys.argv[2] == "a thread waits":
    sys.exit(process.exit_code)
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


def test_a_second_signal_does_not_replace_the_exit_code_that_was_reached() -> None:
    command = [sys.executable, "-c", PROCESS, "20", "a thread waits"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "done\n", "its loop is closed by now, and Python waits for the thread"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.communicate("go on\n", timeout=30)
        assert process.returncode == 6


EARLY = """
import os, signal, sys
from stream.cli import main

class Asked:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))

sys.meta_path.insert(0, Asked())
main(sys.argv[3:])
"""


def end_at_import(module: str, number: signal.Signals, *arguments: str) -> int:
    """The exit code of a command that gets a signal as it imports a module."""
    command = [sys.executable, "-c", EARLY, module, number.name, *arguments]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("service", ["worker", "trainer"])
@pytest.mark.parametrize("module", ["stream.cli.root", "stream.settings", "aiokafka"])
def test_a_signal_before_it_runs_ends_a_service_with_0(service: str, module: str) -> None:
    assert end_at_import(module, signal.SIGTERM, "--debug", service) == 0


def test_ctrl_c_before_it_runs_ends_a_service_with_0_too() -> None:
    assert end_at_import("stream.settings", signal.SIGINT, "worker") == 0


def test_other_commands_end_by_the_signal_as_any_program_does() -> None:
    assert end_at_import("stream.settings", signal.SIGTERM, "bundle", "list") == -signal.SIGTERM
