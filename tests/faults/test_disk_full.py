"""Disks that are full or read-only, under bundle cache and event log: a process says so, waits, and goes on by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stream.local_kafka.broker import Broker
from stream.ops.process_end import EXIT_NOT_DRAINED
from stream.ops.scrape import is_ready
from stream.trainer.event_log import EventLog
from tests.faults.load import GroupView
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Worker
from tests.rigs.serving_rig import (
    ServingRigMaker,
    announce_bundle,
    bundles_named,
    counted,
    start_serving,
    until,
    wait_ready,
    world_plays,
)
from tests.rigs.verdict import judge

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk"),
]

FULL, ROOMY = "size=32k", "size=64m"


@dataclass
class Disk:
    """A small file system in memory, mounted for one test."""

    path: Path

    def remount(self, options: str) -> None:
        """Changes its size, or what may be done with it; what is on it stays."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def fill(self) -> None:
        """Fills the rest of the disk."""
        with contextlib.suppress(OSError), (self.path / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", FULL, "tmpfs", path]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_cache_that_cannot_be_written_keeps_a_worker_waiting_and_a_serving_one_serving(
    disk: Disk, kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow
) -> None:
    rig, (first, second) = make_serving_rig(kafka_broker, cache_dir=disk.path / "cache")
    announce_bundle(rig, first)
    worker = start_serving(rig)
    rig.produce(world_plays(rig, 100))
    until(lambda: counted(worker, "bundle_rejections_total", reason="unreachable") >= 2, 60, worker)
    assert "no bundle" in _not_ready(worker)
    with GroupView(rig.settings) as group:
        assert group.lag() == 100
    assert not rig.answers()
    assert not list((disk.path / "cache" / "bundles").iterdir()), "what does not fit leaves nothing behind"

    disk.remount(ROOMY)
    rig.wait_for_answers(100)
    until(lambda: is_ready(worker.metrics_port), 30, worker)

    disk.remount("ro")
    before = counted(worker, "bundle_rejections_total", reason="unreachable")
    announce_bundle(rig, second)
    until(lambda: counted(worker, "bundle_rejections_total", reason="unreachable") > before, 60, worker)
    rig.produce(world_plays(rig, 100))
    rig.wait_for_answers(200)
    assert is_ready(worker.metrics_port)
    assert set(bundles_named(rig)) == {first.version}

    # One that starts now has what it needs on its disk, and serves with it until the announced one can be had.
    assert worker.terminate() == 0, worker.log()[-3000:]
    worker = start_serving(rig)
    wait_ready(worker)
    until(lambda: counted(worker, "bundle_info", bundle=first.version) == 1, 30, worker)
    disk.remount("rw")
    until(lambda: counted(worker, "bundle_info", bundle=second.version) == 1, 60, worker)
    rig.produce(world_plays(rig, 100))
    rig.wait_for_answers(300)
    assert worker.terminate() == 0, worker.log()[-3000:]
    assert set(bundles_named(rig)) == {first.version, second.version}
    fault_row("disk full, then read-only, under the bundle cache", judge(rig.settings, rig.layout))


def test_an_event_log_that_cannot_be_written_keeps_a_trainer_waiting(
    disk: Disk, kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow
) -> None:
    rig, _ = make_serving_rig(kafka_broker, event_log_dir=disk.path / "log", event_log_flush_s=0.5)
    disk.fill()
    disk.remount("ro")
    trainer = rig.start_worker(module="stream.cli", arguments=["trainer"])
    rig.produce(world_plays(rig, 400))
    until(lambda: "cannot be opened: Read-only" in _not_ready(trainer), 60, trainer)
    disk.remount(f"rw,{FULL}")
    until(lambda: "No space" in _not_ready(trainer), 60, trainer)
    disk.remount("size=1m")
    until(lambda: counted(trainer, "trainer_logged_plays_total") == 400, 60, trainer)
    until(lambda: is_ready(trainer.metrics_port), 30, trainer)
    disk.fill()
    rig.produce(world_plays(rig, 400))
    until(lambda: "cannot be written: No space" in _not_ready(trainer), 60, trainer)
    assert counted(trainer, "trainer_logged_plays_total") == 400
    assert trainer.terminate() == EXIT_NOT_DRAINED
    assert "intentrec: the last plays read are not in the event log" in trainer.log()
    disk.remount(ROOMY)
    trainer = rig.start_worker(module="stream.cli", arguments=["trainer"])
    until(lambda: counted(trainer, "trainer_logged_plays_total") == 400, 60, trainer)
    until(lambda: is_ready(trainer.metrics_port), 30, trainer)
    assert trainer.terminate() == 0, trainer.log()[-3000:]
    logged = EventLog(rig.settings.event_log_dir, rig.settings.plays_topic).plays().column("event_id").to_pylist()
    assert sorted(logged) == sorted(f"e{number}" for number in range(800))
    fault_row("disk read-only, then full, under the event log", plays=800, logged=len(logged))


def _not_ready(process: Worker) -> str:
    """Why /readyz says no; empty where it says yes or nothing."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as answer:
        return answer.read().decode()
    except OSError:
        return ""
