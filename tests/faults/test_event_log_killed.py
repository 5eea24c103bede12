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

#: Writes plays to a folder, and dies at a given call: `FOLDER DIE_AT`. Of several such pairs, each is a process of its own. It is
#: forked from the first, so that imports are paid for once, and its exit code is printed.
WRITER = """
import os, signal, sys
from pathlib import Path
from intentrec_core.plays.table import PlayRow
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay

calls = 0

def mortal(call, die_at):
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

def write(root, die_at):
    os.fsync = mortal(os.fsync, die_at)
    Path.replace = mortal(Path.replace, die_at)
    Path.unlink = mortal(Path.unlink, die_at)
    writer = EventLogWriter(Path(root), "plays", merge_at=3)
    print("open", flush=True)
    for partition in (0, 1):
        while (start := writer.next_offset(partition)) < 200:
            offsets = range(start, min(start + 20, 200))
            plays = [LoggedPlay(o, o, PlayRow(f"{partition}-{o}", "u", "i", o)) for o in offsets]
            writer.append(partition, plays, offsets.stop)
            writer.flush()
            writer.merge()
    print("done", calls, flush=True)

jobs = list(zip(sys.argv[1::2], map(int, sys.argv[2::2])))
if len(jobs) == 1:
    write(*jobs[0])
else:
    for job in jobs:
        child = os.fork()
        if not child:
            write(*job)
            os._exit(0)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
"""


def run_writer(*jobs: tuple[Path, int], timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Each job writes to a folder, and dies at a call of that number; at none, for 0."""
    arguments = [str(argument) for job in jobs for argument in job]
    return subprocess.run(
        [sys.executable, "-c", WRITER, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s
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
    whole = run_writer((tmp_path / "whole", 0))
    num_steps = int(whole.stdout.split()[-1])
    assert num_steps > 100
    steps = range(1, num_steps) if full_faults else [*range(1, 15), *random.Random(0).sample(range(15, num_steps), 3)]
    roots = {die_at: tmp_path / f"at-{die_at}" for die_at in steps}
    done = run_writer(*((root, at) for die_at, root in roots.items() for at in (die_at, 0)), timeout_s=540)
    assert done.returncode == 0, done.stderr
    exit_codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ended")]
    assert exit_codes == [-signal.SIGKILL, 0] * len(steps), done.stderr
    for root in roots.values():
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
    finished = run_writer((tmp_path, 0))
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
    assert run_writer((tmp_path, 0)).returncode == 0
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
        assert "No space" in run_writer((root, 0)).stderr
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        assert "Read-only" in run_writer((root, 0)).stderr
        subprocess.run(["mount", "-o", "remount,rw,size=8m", root], check=True)
        assert run_writer((root, 0)).returncode == 0
        check_each_play_once(root)
    finally:
        subprocess.run(["umount", root], check=True)
