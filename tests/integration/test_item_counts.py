"""What is popular now, on a broker: the trainer's tables of the plays topic, and a real worker that follows them."""

from __future__ import annotations

import asyncio
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from intentrec_core.engine.item_counts import ENTRY
from intentrec_core.features.count_columns import DECAYS_S
from intentrec_core.history.history import hash64
from intentrec_core.plays.table import PlayRow
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.kafka.topics import create_topics
from stream.local_kafka.broker import Broker
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.app import TrainerProcess
from stream.wire.item_counts_record import PackedCounts
from tests.rigs.trainer_rig import make_settings, running, send
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
