"""Runs a command that ends with its parent process, even if the parent is killed.

    python child_guard.py PARENT_PID COMMAND ...

On Linux this process asks the kernel to kill it when the parent's thread dies, then execs the command; the request survives
the exec. On other systems this process stays and polls its parent. Standard library only, so it starts in about 20 ms.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def guarded(command: Sequence[str]) -> list[str]:
    """The command line that runs ``command`` under the guard, as a child of this process.

    ``command[0]`` is a path; PATH is not searched. The kernel watches the THREAD that starts the child: it must live as long as
    the child does.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> int:
    """On Linux, becomes the command. Elsewhere, waits for the command and returns its exit code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the request
            return 1
        os.execv(command[0], command)
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(0.2)  # no signal says that a parent has died
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
