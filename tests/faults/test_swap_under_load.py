"""Bundles swapped again and again during load: one bundle answers each play, and histories do not depend on bundles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_recommendation
from tests.faults.load import GroupView, Load
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig, Worker
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
from tests.rigs.verdict import judge, read_all

NUM_USERS = 200
#: Of members, in the engine's cache: so that a swap has something to warm up.
POOL_BYTES = 16 * 1024 * 1024
#: After a swap, members who were not moved warm are encoded at their next play: that is still the swap's doing.
SETTLE_S = 2.0


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_swaps_under_load_cost_no_play_and_mix_no_versions(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    num_swaps, steady_s, rate = (20, 20.0, 300.0) if full_faults else (3, 3.0, 100.0)
    rig, refs = make_serving_rig(kafka_broker, pool_bytes=POOL_BYTES)
    announce_bundle(rig, refs[0])
    worker = start_serving(rig)
    wait_ready(worker)
    swaps: list[tuple[float, float]] = []
    load = Load(rig, lambda rig, num: world_plays(rig, num, NUM_USERS), rate)
    with load, GroupView(rig.settings) as group:
        group.catches_up(rig, rate=rate)
        time.sleep(steady_s)
        for number in range(1, num_swaps + 1):
            began_s, coming = time.time(), refs[number % 2]
            announce_bundle(rig, coming)
            _until_swapped(worker, number)
            until(partial(_serves, worker, coming.version), 30, worker)
            time.sleep(SETTLE_S)
            swaps.append((began_s, time.time()))
        time.sleep(steady_s)
        group.catches_up(rig, rate=rate)
    rig.wait_for_answers(rig.num_sent)
    num_lookups = counted(worker, "engine_lookups_total")
    num_hits = counted(worker, "engine_lookups_total", result="hit")
    assert worker.terminate() == 0, worker.log()[-3000:]
    named = bundles_named(rig)
    during, steady = _latencies_s(rig, swaps)
    fault_row(
        "weight swaps under load",
        judge(rig.settings, rig.layout),
        swaps=num_swaps,
        plays_s=rate,
        p99_ms_during_swaps=1000 * float(np.quantile(during, 0.99)),
        p99_ms_steady=1000 * float(np.quantile(steady, 0.99)),
        p50_ms_during_swaps=1000 * float(np.median(during)),
        p50_ms_steady=1000 * float(np.median(steady)),
        cache_hit_ratio=num_hits / num_lookups,
    )
    assert set(named) == {ref.version for ref in refs}
    assert sum(named.values()) == rig.num_sent
    assert "refused" not in worker.log()


def _serves(worker: Worker, version: str) -> bool:
    return counted(worker, "bundle_info", bundle=version) == 1


def _until_swapped(worker: Worker, times: int) -> None:
    until(lambda: counted(worker, "bundle_swaps_total") >= times, 60, worker)


def _latencies_s(rig: Rig, swaps: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Of recommendations published during swaps, and at other times since the first."""
    during: list[float] = []
    steady: list[float] = []
    for record in read_all(rig.settings, rig.settings.recommendations_topic):
        latency_s = decode_recommendation(record.value or b"").latency_s
        assert isinstance(latency_s, float)
        at_s = record.timestamp / 1000
        in_swap = any(began_s <= at_s <= ended_s for began_s, ended_s in swaps)
        (during if in_swap else steady).append(latency_s)
    assert during
    assert steady
    return during, steady
