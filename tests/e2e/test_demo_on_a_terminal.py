"""`make demo` on a real (pseudo) terminal: the live view draws, Ctrl-C ends it, nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.rigs.browsers import note_addresses

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 120, 44
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a terminal of its own, whose Ctrl-C is the terminal's."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, text: str, deadline_s: float) -> bool:
        """Whether the text appeared in time."""
        give_up_s = time.monotonic() + deadline_s
        while time.monotonic() < give_up_s:
            if text in _ESCAPES.sub("", self.shown):
                return True
            if not self._read(0.2) and self.process.poll() is not None:
                return False
        return False

    def press_ctrl_c(self) -> None:
        os.write(self._screen, b"\x03")

    def wait(self, deadline_s: float) -> int:
        """Its exit code; reads on, or a full terminal would hold it up."""
        give_up_s = time.monotonic() + deadline_s
        while self.process.poll() is None and time.monotonic() < give_up_s:
            self._read(0.2)
        while self._read(0.0):
            pass
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._screen)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._screen], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


def marked(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes() and (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_make_demo_draws_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "CI"))}
    environment |= {"DEMO_MARK": mark, "TERM": "xterm-256color", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    # A display, and a browser that notes what it is asked to open.
    opened = tmp_path / "opened"
    environment |= {"DISPLAY": ":97", "BROWSER": str(note_addresses(tmp_path / "browser", opened))}
    environment.pop("COLUMNS", None)
    environment.pop("LINES", None)
    # The installation that runs this test is taken as it is: installing has tests of its own.
    terminal = Terminal(["make", "demo", "DEMO_ARGS=--train-seconds 4", "--assume-old=.venv/installed"], environment)
    try:
        assert terminal.read_until("recommended next", 250), terminal.shown[-3000:]
        found = re.search(r"live console: (http://127\.0\.0\.1:\d+)", _ESCAPES.sub("", terminal.shown))
        assert found, terminal.shown[:3000]
        assert opened.read_text() == f"{found[1]}\n"
        with urllib.request.urlopen(found[1], timeout=30) as page:
            assert "<title>IntentRec</title>" in page.read().decode()
        for shown in ("plays/s", "latency p50", "popular, last 7 days", "Weights", "member", "weight"):
            assert terminal.read_until(shown, 30), shown
        assert len(marked(mark)) >= 4
        terminal.press_ctrl_c()
        # make passes the interrupt on, waits, and then ends by it, too, as every Unix program that runs others should.
        assert terminal.wait(120) in (0, -signal.SIGINT), terminal.shown[-3000:]
        said = _ESCAPES.sub("", terminal.shown)
        assert "folded in" in said
        assert "HR@10" in said
        assert marked(mark) == []
    finally:
        terminal.close()
