"""A guarded child returns its own exit code, and ends with a parent that is killed."""

from __future__ import annotations

import subprocess
import sys
import time

from stream.ops.child_guard import guarded

_PARENT = """
import subprocess, sys, time
from stream.ops.child_guard import guarded
command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
child = subprocess.Popen(guarded(command), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_the_exit_code_is_that_of_the_command() -> None:
    assert subprocess.run(guarded([sys.executable, "-c", "raise SystemExit(7)"]), check=False).returncode == 7


def test_the_child_of_a_killed_parent_ends() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_alive(child)
        parent.kill()
        parent.wait()
        give_up_s = time.monotonic() + 20
        while _is_alive(child) and time.monotonic() < give_up_s:
            time.sleep(0.05)
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    """Whether the process runs. A zombie that has not been reaped yet does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(shown.strip()) and "Z" not in shown
