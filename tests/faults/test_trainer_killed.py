"""A trainer killed at every step of publishing: no half bundle is announced, the next one goes on, each play is logged once."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from pkgutil import resolve_name

import pytest

from intentrec_core.bundle.format import BUNDLE_FILES
from intentrec_core.bundle.store import BundleStore
from stream.bundles.verification import check_bundle
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from stream.trainer.event_log import EventLog
from tests.rigs.fault_report import FaultRow
from tests.rigs.trainer_rig import announcements, make_settings, send
from tests.worlds.trainer_world import WalkingWorld

#: Where the child (the training run) or the trainer itself is killed, in the order of publishing: before or after a call of a
#: function, by the number of the call.
FILE_SYSTEM = "fsspec.implementations.local:LocalFileSystem"
NUM_FILES = len(BUNDLE_FILES) + 2  # successors, and the manifest, which is published last
Kills = dict[str, dict[str, int]]
CHILD_STEPS: dict[str, Kills] = {
    "first file written": {"intentrec_core.bundle.format:write_file": {"after": 1}},
    "bundle named": {"intentrec_core.bundle.format:place": {"after": 1}},
    "half of the files in the store": {f"{FILE_SYSTEM}.put_file": {"after": 5}},
    "all but the manifest in the store": {f"{FILE_SYSTEM}.mv": {"before": NUM_FILES}},
    "whole in the store": {f"{FILE_SYSTEM}.mv": {"after": NUM_FILES}},
}
TRAINER_STEPS: dict[str, Kills] = {
    "result heard": {"stream.trainer.app:TrainerProcess._announce": {"before": 1}},
    "before the announcement": {"stream.trainer.app:announce": {"before": 1}},
    "announced, not known": {"stream.trainer.app:announce": {"after": 1}},
}
MORTAL = """
import inspect, json, os, re, signal, sys
from pkgutil import resolve_name
def patch(function, before=0, after=0):
    whole, calls = resolve_name(function), 0
    owner, name = re.split(r"[:.](?=\\w+$)", function)
    def die(): [os.kill(pid, signal.SIGKILL) for pid in victims()]
    def count():
        nonlocal calls
        calls += 1
        return calls
    def step(*args, **options):
        number = count()
        if number == before: die()
        result = whole(*args, **options)
        if number == after: die()
        return result
    async def async_step(*args, **options):
        number = count()
        if number == before: die()
        result = await whole(*args, **options)
        if number == after: die()
        return result
    setattr(resolve_name(owner), name, async_step if inspect.iscoroutinefunction(whole) else step)
"""
CHILD = (
    MORTAL
    + """
import stream.trainer.retrain as retrain
from intentrec_core.training.config import TrainConfig
retrain.train_config = lambda job, warm: TrainConfig(epochs=1)  # the same bundle from every run
victims = lambda: [os.getppid(), os.getpid()]
for function, when in STEP.items(): patch(function, **when)
sys.exit(retrain.main())
"""
)
TRAINER = (
    MORTAL
    + """
import stream.trainer.app as trainer_app
from stream.settings import Settings
victims = lambda: [os.getpid()]
for function, when in STEP.items(): patch(function, **when)
settings = Settings(**json.loads(sys.argv[1]))
sys.exit(trainer_app.run_trainer(settings, retrain_command=(sys.executable, "-c", sys.argv[2])))
"""
)


def run_trainer(
    settings: Settings, *, trainer_step: Kills | None = None, child_step: Kills | None = None
) -> subprocess.Popen[bytes]:
    given = json.dumps(settings.model_dump(mode="json", exclude_unset=True))
    program, child = TRAINER.replace("STEP", repr(trainer_step or {})), CHILD.replace("STEP", repr(child_step or {}))
    return subprocess.Popen([sys.executable, "-c", program, given, child], stdin=subprocess.DEVNULL)


def check_announced(settings: Settings, cache: Path) -> int:
    """Every bundle announced, and every one the store lists, can be fetched and served; returns how many were announced."""
    announced_bundles = asyncio.run(announcements(settings))
    assert [a.sequence for a in announced_bundles] == list(range(1, len(announced_bundles) + 1))
    store = BundleStore(settings.bundle_url, cache)
    for version in {a.bundle for a in announced_bundles} | {manifest.version for manifest in store.list()}:
        check_bundle(store.fetch(version).path)
    return len(announced_bundles)


def test_every_step_kills_at_a_function_of_today() -> None:
    for step, kills in (CHILD_STEPS | TRAINER_STEPS).items():
        for function in kills:
            assert callable(resolve_name(function)), step


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_every_step_of_publishing_only_whole_bundles_are_announced(
    broker: Broker, tmp_path: Path, fault_row: FaultRow, full_faults: bool
) -> None:
    settings = make_settings(broker, tmp_path, session_timeout_s=6)
    walk, num_plays = WalkingWorld(), 0
    asyncio.run(create_topics(settings))
    steps = [({}, step) for step in CHILD_STEPS.values()] + [(step, {}) for step in TRAINER_STEPS.values()]
    if not full_faults:
        steps = [steps[2], steps[-2], steps[-1]]
    for number, (trainer_step, child_step) in enumerate(steps):
        if num_plays == 0 or number == len(steps) - 1:
            num_plays += asyncio.run(send(settings, walk.rows(500, first=num_plays)))
        with run_trainer(settings, trainer_step=trainer_step, child_step=child_step) as process:
            assert process.wait(timeout=180) == -signal.SIGKILL
        announced = check_announced(settings, tmp_path / f"cache-{number}")
        assert announced == (number == len(steps) - 1), (trainer_step, child_step)
    # The next trainer takes up what was announced, and goes on from it.
    num_plays += asyncio.run(send(settings, walk.rows(500, first=num_plays)))
    with run_trainer(settings) as process:
        while process.poll() is None and check_announced(settings, tmp_path / "cache") < 2:
            time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    announced_bundles = asyncio.run(announcements(settings))
    assert announced_bundles[1].parent == announced_bundles[0].bundle
    log = EventLog(settings.event_log_dir, settings.plays_topic)
    assert log.num_plays() == num_plays
    logged = Counter(log.plays().column("event_id").to_pylist())
    fault_row(
        f"trainer killed at every step of publishing, {broker.engine}",
        kills=len(steps),
        bundles_announced=len(announced_bundles),
        plays=num_plays,
        plays_not_logged=num_plays - len(logged),
        plays_logged_twice=sum(logged.values()) - len(logged),
    )
    assert logged == Counter(f"event-{i}" for i in range(num_plays))
