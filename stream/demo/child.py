"""Child processes of the demo: each runs one IntentRec command, in its own process group, and never outlives this process.

    ends                        how
    on request                  ``stop``: SIGTERM, then SIGKILL after a deadline
    when this process ends      child_guard: the kernel kills the child, even after a kill -9 of this process

The separate process group keeps the terminal's Ctrl-C away from the child. This process receives it and stops children in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from intentrec_core.errors import IntentRecError
from stream.ops.child_guard import guarded
from stream.ops.children import child_environment, last_line

#: A worker exits at its own drain deadline of 20 s at the latest. After this longer time it is stuck.
STOP_DEADLINE_S = 25.0


class ChildEnded(IntentRecError):
    """A child process ended by itself. The message quotes the last line of its log, which usually says why."""


@dataclass
class Child:
    """A running child process. Start it from a thread that outlives it, because the kernel watches that thread."""

    name: str
    log_path: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        name: str,
        arguments: Sequence[str],
        *,
        log_path: Path,
        environment: Mapping[str, str],
    ) -> Self:
        """Runs ``python -m stream.cli ARGUMENTS`` with the environment of this process plus ``environment``."""
        command = guarded([sys.executable, "-m", "stream.cli", *arguments])
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=child_environment(**environment, PYTHONUNBUFFERED="1"),
            )
        return cls(name, log_path, process)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raises ChildEnded when the process has ended."""
        code = self.process.poll()
        if code is not None:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ChildEnded(f"the {self.name} ended by itself ({how}): {self.last_line()} (log: {self.log_path})")

    def last_line(self) -> str:
        """The last line of its log."""
        return last_line(self.log_path)

    def ask_to_stop(self) -> None:
        """Sends SIGTERM and returns immediately."""
        if self.running:
            self.process.terminate()

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Sends SIGTERM; if it does not end in time, SIGKILL to its process group. Returns its exit code."""
        self.ask_to_stop()
        give_up_s = time.monotonic() + deadline_s
        try:
            return self.process.wait(max(0.0, give_up_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kills its process group immediately. Returns its exit code."""
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()
