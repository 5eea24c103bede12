"""Two whole trainers at once, on either broker: one leads and goes on, the other ends; the next leads once the first is gone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from intentrec_core.errors import Fenced
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.ops.metrics import Metrics
from stream.trainer.app import TrainerProcess
from tests.rigs.fault_report import FaultRow
from tests.rigs.trainer_rig import health, make_settings, running, until_answered


@pytest.mark.timeout(300)
def test_a_second_trainer_ends_and_the_first_one_goes_on(broker: Broker, tmp_path: Path, fault_row: FaultRow) -> None:
    settings = make_settings(broker, tmp_path, session_timeout_s=6)
    elsewhere = settings.model_copy(update={"event_log_dir": settings.event_log_dir.with_name("other-log")})

    async def scenario() -> tuple[float, float]:
        await create_topics(settings)
        first = TrainerProcess(settings, Metrics())
        async with running(first) as task:
            await until_answered(first, "/readyz", (200, "ok"))
            began_s = time.monotonic()
            with pytest.raises(Fenced, match="another trainer"):
                await TrainerProcess(elsewhere, Metrics()).run()
            ended_s = time.monotonic() - began_s
            assert not task.done()
            assert (await health(first, "/readyz"))[0] == 200
        # The lock is free again.
        second, began_s = TrainerProcess(elsewhere, Metrics()), time.monotonic()
        async with running(second):
            await until_answered(second, "/readyz", (200, "ok"))
            leads_s = time.monotonic() - began_s
        return ended_s, leads_s

    ended_s, leads_s = asyncio.run(scenario())
    fault_row(
        f"two trainers at once, {broker.engine}",
        second_ended_after_s=ended_s,
        next_one_leads_after_s=leads_s,
    )
