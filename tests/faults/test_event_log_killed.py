"""The event log under kill -9 at every system call that matters, at random moments, and on disks that are full or read-only.

The writer is a process of its own that follows a topic of known plays; whatever is done to it, the plays in the log at the
end are those of the topic, each one once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.trainer.event_log import EventLog
from tests.rigs.fault_report import FaultRow

NUM_PLAYS = 400

WRITER = """
import os, signal, sys
from pathlib import Path
from intentrec_core.plays.table import PlayRow
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay

root, die_at = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def mortal(call):
    # Dies before the call and, the next time, after it.
    def step(*args, **kwargs):
        global calls
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return step

os.fsync = mortal(os.fsync)
Path.replace = mortal(Path.replace)
Path.unlink = mortal(Path.unlink)
writer = EventLogWriter(root, "plays", merge_at=3)
print("open", flush=True)
for partition in (0, 1):
    while (start := writer.next_offset(partition)) < 200:
        offsets = range(start, min(start + 20, 200))
        plays = [LoggedPlay(o, o, PlayRow(f"{partition}-{o}", "u", "i", o)) for o in offsets]
        writer.append(partition, plays, offsets.stop)
        writer.flush()
        writer.merge()
print("done", calls, flush=True)
"""
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
"""


def run_writer(root: Path, die_at: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(root), str(die_at)], capture_output=True, text=True, check=False, timeout=60
    )


def check_each_play_once(root: Path) -> None:
    events = EventLog(root, "plays").plays().column("event_id").to_pylist()
    assert len(events) == NUM_PLAYS
    assert set(events) == {f"{p}-{o}" for p in (0, 1) for o in range(NUM_PLAYS // 2)}
    assert EventLog(root, "plays").num_plays() == NUM_PLAYS
    assert not list(root.glob(".writing-*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_every_step_each_play_is_logged_once(tmp_path: Path, fault_row: FaultRow, full_faults: bool) -> None:
    whole = run_writer(tmp_path / "whole")
    num_steps = int(whole.stdout.split()[-1])
    assert num_steps > 100
    steps = range(1, num_steps) if full_faults else [*range(1, 15), *random.Random(0).sample(range(15, num_steps), 3)]
    for die_at in steps:
        root = tmp_path / f"at-{die_at}"
        assert run_writer(root, die_at).returncode == -signal.SIGKILL, die_at
        finished = run_writer(root)
        assert finished.returncode == 0, finished.stderr
        check_each_play_once(root)
    fault_row("event log's writer killed at every step", kills=len(steps), plays_each_time=NUM_PLAYS)


def test_killed_again_and_again_each_play_is_logged_once(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "0"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.12))
            process.kill()
    finished = run_writer(tmp_path)
    assert finished.returncode == 0, finished.stderr
    check_each_play_once(tmp_path)


def test_a_full_disk_refuses_and_recovers_without_hand_edits(tmp_path: Path) -> None:
    full = subprocess.run(
        [sys.executable, "-c", FULL_DISK + WRITER, str(tmp_path), "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert full.returncode == 1
    assert "OSError" in full.stderr
    assert run_writer(tmp_path).returncode == 0
    check_each_play_once(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_mounted_disk_that_is_full_or_read_only_refuses_and_recovers(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", root], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        assert "No space" in run_writer(root).stderr
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        assert "Read-only" in run_writer(root).stderr
        subprocess.run(["mount", "-o", "remount,rw,size=8m", root], check=True)
        assert run_writer(root).returncode == 0
        check_each_play_once(root)
    finally:
        subprocess.run(["umount", root], check=True)
