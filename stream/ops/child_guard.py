"""Runs a command that ends when its parent does, however the parent ends.

    python child_guard.py PARENT_PID COMMAND ...

On Linux the kernel is asked to kill this process when the parent's thread dies; the request survives the exec into the
command. Elsewhere this process stays and watches. Standard library only: it starts in about 20 ms.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> int:
    """Becomes the command on Linux; elsewhere waits for it and returns its exit code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # died before the request was made
            return 1
        os.execv(command[0], command)
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(0.2)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
