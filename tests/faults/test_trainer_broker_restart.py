"""A broker that is killed and started again: the trainer goes on, still leads, and logs each play once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream.kafka.topics import create_topics
from stream.local_kafka.broker import start_broker
from stream.ops.metrics import Metrics
from stream.trainer.app import TrainerProcess
from stream.trainer.event_log import EventLog
from tests.rigs.fault_report import FaultRow
from tests.rigs.trainer_rig import counted, health, make_settings, running, send, until
from tests.worlds.trainer_world import WalkingWorld


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_broker_that_is_killed_and_back_costs_the_trainer_nothing(
    kafka_jars: None, tmp_path: Path, fault_row: FaultRow
) -> None:
    walk = WalkingWorld()
    broker = start_broker(engine="kafka", data_dir=tmp_path / "kafka")
    settings = make_settings(broker, tmp_path, retrain_min_plays=10_000, session_timeout_s=6)

    async def scenario() -> None:
        nonlocal broker
        await create_topics(settings)
        metrics = Metrics()
        process = TrainerProcess(settings, metrics)
        async with running(process) as task:
            await send(settings, walk.rows(200))
            await until(lambda: counted(metrics, "trainer_logged_plays_total") == 200)
            port = broker.port
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(settings.session_timeout_s + 1)
            broker = await asyncio.to_thread(start_broker, engine="kafka", port=port, data_dir=tmp_path / "kafka")
            await send(settings, walk.rows(200, first=200))
            await until(lambda: counted(metrics, "trainer_logged_plays_total") == 400, deadline_s=60)
            await asyncio.sleep(settings.session_timeout_s)
            assert not task.done()
            assert await health(process, "/readyz") == (200, "ok")
            assert await health(process, "/livez") == (200, "ok")
            await process.confirm_lead("still leads")
        log = EventLog(settings.event_log_dir, settings.plays_topic)
        fault_row("broker kill -9 and restart under the trainer", plays=400, plays_logged=log.num_plays())
        assert log.num_plays() == 400
        assert sorted(log.plays().column("event_id").to_pylist()) == sorted(f"event-{i}" for i in range(400))

    try:
        asyncio.run(scenario())
    finally:
        broker.stop()
