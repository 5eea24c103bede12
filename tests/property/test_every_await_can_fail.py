"""Whatever call fails, before or after it took effect: state equals the oracle's fold, and every play is answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.changelog_codec import Marker
from intentrec_core.history import History
from stream import worker as worker_module
from stream.folding import Folder
from stream.metrics import Metrics
from stream.partition import LifeParts
from stream.records import PartitionResult, SourceRecord
from stream.settings import Settings
from stream.worker import PlaysWorker
from tests.counting import CountingPipeline
from tests.property.scripted_broker import ScriptedBroker, ScriptedWriter

NUM_PARTITIONS, NUM_USERS, NUM_PLAYS = 2, 4, 60
DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(worker_module, "_LAST_RETRY_S", 0.0)


class SlowPipeline(CountingPipeline):
    """Slow enough that plays gather in the buffer, and that a life can fail while its plays are in inference."""

    def process(self, batches: Mapping[int, Sequence[SourceRecord]]) -> list[PartitionResult]:
        time.sleep(0.001)
        return super().process(batches)


async def _run(script: dict[int, str], *, revoke_at: frozenset[int] = frozenset()) -> ScriptedBroker:
    pipeline = SlowPipeline(None)  # type: ignore[arg-type]
    broker = ScriptedBroker(pipeline.layout, NUM_PARTITIONS, script)
    broker.fill(NUM_PLAYS, NUM_USERS)
    options: dict[str, Any] = {"max_batch": 7, "batch_deadline_ms": 0, "commit_interval_s": 0.0005}
    worker = PlaysWorker(Settings.load(**options), pipeline, Metrics(), rebalance_timeout_s=10)
    fingerprint = pipeline.layout.domain.fingerprint
    parts = LifeParts(
        source=broker,
        writer=partial(ScriptedWriter, broker),
        marker=lambda num, offset: Marker(num_partitions=num, next_offset=offset, fingerprint=fingerprint),
        restore=broker.restore,
        open_state=partial(worker.on_inference_thread, pipeline.open_partition),
        close_state=partial(worker.on_inference_thread, pipeline.close_partition),
        transactional=True,
        fingerprint=fingerprint,
        commit_interval_s=options["commit_interval_s"],
        recovery_deadline_s=5,
        on_failed=worker.life_failed,
        on_committed=worker.committed,
        on_restored=worker.figures.restored,
    )
    worker.start(parts, broker)  # type: ignore[arg-type]
    everything = set(range(NUM_PARTITIONS))
    worker.partitions_assigned(everything)
    turns, delays = 0, random.Random(str(script))
    async with asyncio.timeout(DEADLINE_S):
        while any(broker.committed.get(p, 0) < len(log) for p, log in broker.plays.items()):
            assert not worker.fatal.done(), worker.fatal.result()
            if turns in revoke_at:
                await worker.partitions_revoked(everything)
                worker.partitions_assigned(everything)
            await worker.wait_for_room()
            lives = worker.fetchable()
            fetched = {partition: broker.fetch(partition, 17) for partition in lives}
            # On its way from the consumer's thread: what happens meanwhile must not let stale plays in.
            await asyncio.sleep(delays.choice((0, 0, 0, 0.002, 0.02)))
            for partition, records in fetched.items():
                if records:
                    worker.accept(lives[partition], records)
            turns += 1
        await worker.drain()
    await worker.stop()
    return broker


def _check(broker: ScriptedBroker) -> None:
    for partition, log in broker.plays.items():
        expected: dict[str, History] = {}
        Folder(broker.layout, None).fold(partition, expected, log)
        found = asyncio.run(_restored(broker, partition))
        assert found == expected, f"partition {partition} after {broker.script}"
    assert len(broker.answered) == 2 * NUM_PLAYS, "every play has both answers"


async def _restored(broker: ScriptedBroker, partition: int) -> dict[str, History]:
    broker.script = {}
    return (await broker.restore(partition)).histories


@pytest.mark.parametrize("when", ["before", "after"])
def test_each_step_failing_alone(when: str) -> None:
    calm = asyncio.run(_run({}))
    _check(calm)
    assert set(calm.answered.values()) == {1}
    assert {"open", "restore", "facts", "seek", "publish", "commit"} <= set(calm.steps)
    for step in range(40):
        _check(asyncio.run(_run({step: when})))


@settings(max_examples=30)
@given(
    st.dictionaries(st.integers(0, 120), st.sampled_from(["before", "after"]), max_size=8),
    st.frozensets(st.integers(0, 40), max_size=3),
)
def test_several_failures_and_rebalances_in_any_order(script: dict[int, str], revoke_at: frozenset[int]) -> None:
    _check(asyncio.run(_run(script, revoke_at=revoke_at)))
