"""Child processes of a demo: started in a process group of their own, watched, asked to end, and never left behind.

    ends                        because
    on request                  ``stop``: SIGTERM, and SIGKILL after a deadline
    when this process is gone   child_guard: the kernel kills the child, also after a kill -9 of this process

Their own group keeps the terminal's Ctrl-C from reaching them: this process gets it and ends them in order.
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

#: A worker drains within its own deadline of 20 s and then exits; past this it is stuck.
STOP_DEADLINE_S = 25.0


class ChildEnded(IntentRecError):
    """A child process ended by itself. The message names its log; the last line of it usually says why."""


@dataclass
class Child:
    """A running child process. Start it from a thread that outlives it: the kernel watches that thread."""

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
        """Runs ``python -m stream.cli ARGUMENTS`` with this process's environment changed by ``environment``."""
        command = guarded([sys.executable, "-m", "stream.cli", *arguments])
        # This tree's packages, wherever the child's working folder is and whatever else is installed.
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
            )
        return cls(name, log_path, process)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raises ChildEnded when the process is gone."""
        code = self.process.poll()
        if code is not None:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ChildEnded(f"the {self.name} ended by itself ({how}): {self.last_line()} (log: {self.log_path})")

    def last_line(self) -> str:
        """The last line it wrote."""
        lines = [line.strip() for line in self.log_path.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it wrote nothing"

    def ask_to_stop(self) -> None:
        """SIGTERM; returns at once."""
        if self.running:
            self.process.terminate()

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """SIGTERM, then SIGKILL to its whole group when it does not end in time; returns its exit code."""
        self.ask_to_stop()
        give_up_s = time.monotonic() + deadline_s
        try:
            return self.process.wait(max(0.0, give_up_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Ends it, and whatever it started, at once; returns its exit code."""
        with contextlib.suppress(ProcessLookupError):  # it ended in between
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()
