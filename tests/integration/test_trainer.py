"""The trainer on a real broker: plays in, bundles announced, bad models refused, each play once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from intentrec_core.bundle.store import BundleStore
from intentrec_core.errors import StateError
from stream.bundles.verification import check_bundle
from stream.kafka.replay import play_message
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.app import TrainerProcess
from stream.trainer.event_log import EventLog
from stream.trainer.retrain_job import GateReason
from stream.wire.codec import encode
from stream.wire.routing import key_hash
from tests.rigs.trainer_rig import (
    NUM_PARTITIONS,
    announcements,
    counted,
    health,
    logged_events,
    make_settings,
    running,
    send,
    until,
    until_answered,
)
from tests.worlds.trainer_world import WalkingWorld

pytestmark = pytest.mark.timeout(300)

SHUFFLED = """
import sys, torch, stream.trainer.retrain as retrain
honest = retrain.train
def shuffled(*args, **options):
    trained = honest(*args, **options)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            flat = parameter.view(-1)
            flat.copy_(flat[torch.randperm(len(flat))])
    return trained
retrain.train = shuffled
sys.exit(retrain.main())
"""
HANGING = """
import time, stream.trainer.retrain as retrain
retrain.main(lambda job: (print("hanging", file=__import__("sys").stderr, flush=True), time.sleep(600)))
"""


@pytest.fixture
def settings(broker: Broker, tmp_path: Path) -> Settings:
    return make_settings(broker, tmp_path)


@pytest.mark.slow
def test_plays_become_a_first_bundle_and_then_a_better_one_with_rows_for_new_items(
    settings: Settings, tmp_path: Path
) -> None:
    walk = WalkingWorld(num_items=24)

    async def scenario() -> None:
        await create_topics(settings)
        sent = await send(settings, walk.rows(600, num_items=20))
        metrics = Metrics()
        process = TrainerProcess(settings, metrics)
        async with running(process):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="published") >= 1)
            assert await health(process, "/readyz") == (200, "ok")
            assert await health(process, "/livez") == (200, "ok")
            first = (await announcements(settings))[-1]
            assert (first.sequence, first.parent) == (1, None)
            sent += await send(settings, walk.rows(900, first=600, num_items=24))
            await until(lambda: counted(metrics, "trainer_logged_plays_total") == sent)
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="published") >= 2)
        assert counted(metrics, "trainer_logged_plays_total") == sent
        announced = await announcements(settings)
        assert [a.sequence for a in announced] == list(range(1, len(announced) + 1))
        assert announced[1].parent == first.bundle
        # A fresh machine can fetch and serve what was announced.
        loaded, _ = check_bundle(
            BundleStore(announced[-1].url, tmp_path / "elsewhere").fetch(announced[-1].bundle).path
        )
        older, _ = check_bundle(BundleStore(first.url, tmp_path / "elsewhere").fetch(first.bundle).path)
        assert loaded.vocabulary.extends(older.vocabulary)
        assert (len(older.vocabulary), len(loaded.vocabulary)) == (21, 25)
        assert sorted(logged_events(settings)) == sorted(f"event-{i}" for i in range(1_500))

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_bad_model_is_refused_and_the_old_bundle_stays(settings: Settings) -> None:
    walk = WalkingWorld()

    async def scenario() -> None:
        await create_topics(settings)
        await send(settings, walk.rows(1_500))
        metrics = Metrics()
        async with running(TrainerProcess(settings, metrics)):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="published") >= 1)
        before = await announcements(settings)
        await send(settings, walk.rows(1_500, first=1_500))
        bad = TrainerProcess(settings, metrics, retrain_command=(sys.executable, "-c", SHUFFLED))
        async with running(bad):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="gated") >= 1)
            assert (await health(bad, "/readyz"))[0] == 200
        assert bad.last_result is not None
        assert bad.last_result.reason in (GateReason.WORSE_ITEMS, GateReason.WORSE_INTENTS)
        assert counted(metrics, "trainer_gated_total", reason=bad.last_result.reason) >= 1
        assert await announcements(settings) == before
        # ... and an honest run goes on from it.
        async with running(TrainerProcess(settings, metrics)):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="published") >= 2)
        assert (await announcements(settings))[-1].parent == before[-1].bundle

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_catalogue_that_makes_an_intent_meaningless_gates_the_run_and_the_old_bundle_stays(
    settings: Settings, tmp_path: Path
) -> None:
    walk = WalkingWorld(num_items=24)

    async def scenario() -> None:
        await create_topics(settings)
        await send(settings, walk.rows(600))
        metrics = Metrics()
        async with running(TrainerProcess(settings, metrics)):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="published") >= 1)
        before = await announcements(settings)
        await send(settings, walk.rows(600, first=600))
        bare = tmp_path / "bare.jsonl"
        bare.write_text("".join(f'{{"item_id": "item-{i}", "genres": ["drama"]}}\n' for i in range(24)))
        misspelt = TrainerProcess(settings.model_copy(update={"catalogue": bare}), metrics)
        async with running(misspelt):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="gated") >= 1)
            assert (await health(misspelt, "/readyz"))[0] == 200
        assert misspelt.last_result is not None
        assert "intent genre has no known label at any play" in misspelt.last_result.detail
        assert counted(metrics, "trainer_gated_total", reason=GateReason.DATA) >= 1
        assert counted(metrics, "data_drift_ratio", field="genre") > 0.5
        assert await announcements(settings) == before
        # With the catalogue mended, a run goes on from it.
        async with running(TrainerProcess(settings, metrics)):
            await until(lambda: counted(metrics, "trainer_runs_total", outcome="published") >= 2)
        assert (await announcements(settings))[-1].parent == before[-1].bundle

    asyncio.run(scenario())


def test_what_the_worker_sets_aside_is_not_logged_and_a_restart_logs_nothing_twice(settings: Settings) -> None:
    walk = WalkingWorld()

    async def send_invalid() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=settings.broker, acks="all")
        await producer.start()
        good = next(walk.rows(1))
        fields = json.loads(encode(play_message(good)))
        wrong = (key_hash(good.user_id.encode()) + 1) % NUM_PARTITIONS
        for value in (b"not json", b"", encode(play_message(good))[:-9]):
            await producer.send_and_wait(settings.plays_topic, value, partition=0)
        for change in ({"schema_version": 9}, {"ts": 1e18}, {"context": {"max_maturity": "none"}}):
            await producer.send_and_wait(
                settings.plays_topic, json.dumps(fields | change).encode(), partition=1 - wrong
            )
        await producer.send_and_wait(settings.plays_topic, encode(play_message(good)), partition=wrong)
        await producer.stop()

    async def scenario() -> None:
        await create_topics(settings)
        expected: list[str] = []
        for round_ in range(3):
            await send_invalid()
            expected += [row.event_id for row in walk.rows(50, first=50 * round_)]
            await send(settings, walk.rows(50, first=50 * round_))
            metrics = Metrics()
            async with running(TrainerProcess(settings, metrics)):
                await until(lambda metrics=metrics: counted(metrics, "trainer_logged_plays_total") == 50)
        assert sorted(logged_events(settings)) == sorted(expected)
        assert EventLog(settings.event_log_dir, settings.plays_topic).num_plays() == 150

    asyncio.run(scenario())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_under_the_event_log_makes_it_not_ready_until_there_is_room(settings: Settings) -> None:
    root = settings.event_log_dir
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", root], check=False).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    walk = WalkingWorld()

    async def scenario() -> None:
        await create_topics(settings)
        metrics = Metrics()
        process = TrainerProcess(settings, metrics)
        async with running(process):
            full = (503, "the event log cannot be written: No space left on device")
            for round_ in range(20):
                await send(settings, walk.rows(200, first=200 * round_))
                await asyncio.sleep(0.5)
                if await health(process, "/readyz") == full:
                    break
            assert await health(process, "/readyz") == full
            assert (await health(process, "/livez"))[0] == 200
            await send(settings, walk.rows(100, first=200 * (round_ + 1)))
            assert counted(metrics, "trainer_logged_plays_total") < 200 * (round_ + 1)
            await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=8m", root], check=True)
            await until(lambda: counted(metrics, "trainer_logged_plays_total") == 200 * (round_ + 1) + 100)
            assert (await health(process, "/readyz"))[0] == 200
        assert EventLog(root, settings.plays_topic).num_plays() == 200 * (round_ + 1) + 100

    try:
        asyncio.run(scenario())
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_read_only_event_log_makes_it_not_ready_until_it_can_be_written(settings: Settings) -> None:
    root = settings.event_log_dir
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", root], check=False).returncode:
        pytest.skip("this machine does not let us mount a disk")

    async def scenario() -> None:
        await create_topics(settings)
        await send(settings, WalkingWorld().rows(50))
        metrics = Metrics()
        process = TrainerProcess(settings, metrics)
        async with running(process):
            refused = (503, "the event log cannot be opened: Read-only file system")
            await until_answered(process, "/readyz", refused)
            await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,rw", root], check=True)
            await until(lambda: counted(metrics, "trainer_logged_plays_total") == 50)
            assert (await health(process, "/readyz"))[0] == 200

    try:
        asyncio.run(scenario())
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_topic_made_anew_is_refused_with_the_remedy(settings: Settings, broker: Broker, tmp_path: Path) -> None:
    walk = WalkingWorld()

    async def scenario() -> None:
        await create_topics(settings)
        await send(settings, walk.rows(60))
        metrics = Metrics()
        async with running(TrainerProcess(settings, metrics)):
            await until(lambda: counted(metrics, "trainer_logged_plays_total") == 60)
        for seed, num_plays in ((1, 90), (0, 20)):  # longer than before, with other plays; and shorter
            anew = make_settings(broker, tmp_path)
            await create_topics(anew)
            await send(anew, walk.rows(num_plays, seed=seed, first=5 * seed))
            for path in settings.event_log_dir.glob("*.parquet"):
                path.rename(path.with_name(path.name.replace(settings.plays_topic, anew.plays_topic)))
            with pytest.raises(StateError, match=r"created anew.*Move"):
                await TrainerProcess(anew, Metrics()).run()
            for path in settings.event_log_dir.glob("*.parquet"):
                path.rename(path.with_name(path.name.replace(anew.plays_topic, settings.plays_topic)))

    asyncio.run(scenario())


def trainer_process(settings: Settings, script: str) -> subprocess.Popen[str]:
    """``run_trainer`` in a process of its own, with ``script`` as its training run."""
    program = (
        "import sys, json; from stream.settings import Settings; from stream.trainer.app import run_trainer\n"
        "sys.exit(run_trainer(Settings(**json.loads(sys.argv[1])), retrain_command=(sys.executable, '-c', sys.argv[2])))"
    )
    given = settings.model_dump(mode="json", exclude_unset=True)
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(given), script],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_training_run_ends_it_in_seconds(
    settings: Settings, number: signal.Signals
) -> None:
    walk = WalkingWorld()
    asyncio.run(create_topics(settings))
    asyncio.run(send(settings, walk.rows(500)))
    with trainer_process(settings, HANGING) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "hanging" in line:
                break
        asyncio.run(send(settings, walk.rows(30, first=500)))
        asyncio.run(until(lambda: len(logged_events(settings)) == 530))
        process.send_signal(number)
        began_s = time.monotonic()
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - began_s < 10
    assert len(logged_events(settings)) == 530
    assert asyncio.run(announcements(settings)) == []
    left = subprocess.run(["pgrep", "-f", settings.app_id], capture_output=True, text=True, check=False)
    assert left.stdout.strip() == ""
