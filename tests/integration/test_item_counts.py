"""What is popular now, on a broker: the trainer's tables of the plays topic, and a real worker that follows them."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from msgspec import UNSET

from intentrec_core.engine.item_counts import ENTRY
from intentrec_core.features.catalogue import Item
from intentrec_core.features.count_columns import DECAYS_S
from intentrec_core.history.history import hash64
from intentrec_core.plays.table import PlayRow
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.kafka.items_writer import put_item
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.app import TrainerProcess
from stream.wire.codec import decode_recommendation
from stream.wire.item_counts_record import PackedCounts
from stream.wire.messages import Recommendation
from tests.rigs.rig import ANSWERS_WITHIN_S
from tests.rigs.serving_rig import (
    ServingRigMaker,
    announce_bundle,
    counted,
    start_serving,
    until,
    wait_ready,
)
from tests.rigs.trainer_rig import make_settings, running, send
from tests.worlds.bundle_world import make_bundle
from tests.worlds.tiny_world import START_MS, TinyWorld
from tests.worlds.trainer_world import WalkingWorld

pytestmark = pytest.mark.timeout(240)


def sums(table: PackedCounts) -> dict[int, list[float]]:
    entries = np.frombuffer(b"".join(table.blocks), dtype=ENTRY)
    return {int(e["item_hash"]): [float(e["first_ms"]), float(e["newest_ms"]), *e["sums"].tolist()] for e in entries}


def naive_sums(rows: list[PlayRow]) -> dict[int, list[float]]:
    found = {}
    for item_id in {row.item_id for row in rows}:
        at_ms = [row.ts_ms for row in rows if row.item_id == item_id]
        newest = max(at_ms)
        decayed = [sum(math.exp((ms - newest) / 1000 / decay_s) for ms in at_ms) for decay_s in DECAYS_S]
        found[hash64(item_id)] = [min(at_ms), newest, *decayed]
    return found


async def table_of(settings: Settings, num_plays: int) -> PackedCounts:
    """The next table that counts so many plays."""
    async with asyncio.timeout(120), ItemCountsReader(settings) as reader:
        table = await reader.to_the_end()
        if table is not None and sum(table.head.offsets.values()) == num_plays:
            return table
        async for table in reader.follow():
            if sum(table.head.offsets.values()) == num_plays:
                return table
    raise AssertionError


def same_sums(table: PackedCounts, rows: list[PlayRow]) -> None:
    found, wanted = sums(table), naive_sums(rows)
    assert found.keys() == wanted.keys()
    for item, values in wanted.items():
        np.testing.assert_allclose(found[item], values, rtol=1e-9)
    assert table.head.event_time_ms == max(row.ts_ms for row in rows)


@pytest.mark.parametrize("flush_s", [0.2, 3600])
def test_a_trainer_writes_the_counts_of_the_log_and_the_next_one_goes_on(
    broker: Broker, tmp_path: Path, flush_s: float
) -> None:
    """Also where the first one is killed with plays in its table that are not in the event log yet."""
    settings = make_settings(
        broker, tmp_path, item_counts_refresh_s=1, retrain_interval_s=3600, event_log_flush_s=flush_s
    )
    rows = list(WalkingWorld().rows(600))

    async def test() -> None:
        await create_topics(settings)
        await send(settings, itertools.islice(rows, 300))
        first = TrainerProcess(settings, Metrics())
        async with running(first):
            table = await table_of(settings, 300)
            same_sums(table, rows[:300])
            if flush_s > 1:  # what is killed flushes nothing
                first._follower._writer.flush = first._follower._writer.merge = lambda: 0  # type: ignore[union-attr]
        await send(settings, iter([*rows[300:], rows[-1]]))
        async with running(TrainerProcess(settings, Metrics())):
            again = await table_of(settings, 601)
        same_sums(again, rows)
        assert again.head.sequence > table.head.sequence

    asyncio.run(test())


class TrainerBeside:
    """A trainer in a thread of this process, beside the rig's workers."""

    def __init__(self, settings: Settings) -> None:
        self.process = TrainerProcess(settings.model_copy(update={"metrics_port": 0}), Metrics())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            await self.process.run()

        asyncio.run(run())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        while self._loop is None:
            time.sleep(0.01)
        self._loop.call_soon_threadsafe(self.process.stop)
        self._thread.join()


def test_an_item_that_others_begin_to_play_is_on_lists_within_seconds_and_without_training(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker, world: TinyWorld, tmp_path: Path
) -> None:
    """It is new to the bundle too: in the catalogue since after the bundle was built. Then the trainer ends: lists go on."""
    rig, _ = make_serving_rig(
        embedded_broker,
        catalogue_source="topic",
        num_recommendations=5,
        item_counts_refresh_s=1,
        retrain_interval_s=3600,
        event_log_dir=tmp_path / "log",
    )
    model = world.model(1, item_counts=True)
    assert model.count_gate is not None
    model.count_gate.bias.data[:4] = 3.0  # as a model that has learnt that popular items are played
    for item in [*world.items, Item("new", "New", {**world.item(2).attributes, "maturity": 0})]:
        asyncio.run(put_item(rig.settings, item))
    announce_bundle(rig, make_bundle(tmp_path / "store", world, model))
    seen = 0

    def play(item_id: str, *user_ids: str) -> Recommendation:
        """The list of the last of some members, after each has played the item."""
        nonlocal seen
        events = []
        for user_id in user_ids:
            seen += 1
            event = {"event_id": f"e{seen}", "user_id": user_id, "item_id": item_id, "ts": START_MS + 1000 * seen}
            events.append(event | {"duration_s": 90.0, "context": {"device": "tv", "max_maturity": 4}})
        rig.produce(events)
        rig.wait_for_answers(seen)
        lists = [decode_recommendation(output.value) for output in rig.outputs(rig.settings.recommendations_topic)]
        (listed,) = [listed for listed in lists if listed.event_id == f"e{seen}"]
        return listed

    def items(listed: Recommendation) -> list[str]:
        return [item.item_id for item in listed.items]

    worker = start_serving(rig)
    wait_ready(worker)
    before = play("item-1", "member")
    assert before.counts_sequence is UNSET
    assert "new" not in items(before)
    with TrainerBeside(rig.settings):
        play("new", *(f"other-{number}" for number in range(12)))
        started_s = time.monotonic()
        table = asyncio.run(table_of(rig.settings, seen))
        until(lambda: counted(worker, "item_counts_sequence") >= table.head.sequence, ANSWERS_WITHIN_S, worker)
        took_s = time.monotonic() - started_s
        after = play("item-2", "member")
    assert items(after)[0] == "new"
    assert after.counts_sequence is not UNSET
    assert after.counts_sequence >= table.head.sequence
    assert after.bundle == before.bundle
    assert took_s < 30, "seconds, on a busy machine too"
    without = play("item-3", "member")
    assert items(without)[0] == "new", "counts grow old, and lists go on"
    assert worker.terminate() == 0, worker.log()[-2000:]

    worker = start_serving(rig)
    wait_ready(worker)
    assert counted(worker, "item_counts_sequence") >= table.head.sequence, "ready means that the topic is read"
    assert items(play("item-4", "another"))[0] == "new"
    assert worker.terminate() == 0, worker.log()[-2000:]
