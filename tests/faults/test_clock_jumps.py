"""A worker whose clock is set an hour ahead or back while it serves: nothing lost, no latency that cannot be."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_intent, decode_recommendation
from tests.faults.jumping_clock import OFFSETS_S
from tests.faults.load import START_WITHIN_S, GroupView, Load, holds_partitions, serving
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Worker
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, counted, start_serving, until, world_plays
from tests.rigs.verdict import judge

RATE = 100.0


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_clock_jumps(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    announce_bundle(rig, bundle)
    jumping, steady = rig.start_worker(module="tests.faults.jumping_clock", arguments=["worker"]), start_serving(rig)
    until(partial(serving, [jumping, steady], NUM_PARTITIONS), START_WITHIN_S, jumping)
    assert holds_partitions(jumping)
    num_published = 15 * RATE if full_faults else RATE / 2
    with GroupView(rig.settings) as group:
        with Load(rig, world_plays, RATE):
            for _ in OFFSETS_S:  # all of them and back
                until_num = counted(jumping, "outputs_published_total") + num_published
                jumping.send(signal.SIGUSR1)
                # Publishes with this clock, for a while.
                until(partial(_has_published, jumping, until_num), 120, jumping)
            group.catches_up(rig, rate=RATE)
        group.catches_up(rig)
    recommended = [decode_recommendation(o.value).latency_s for o in rig.outputs(rig.settings.recommendations_topic)]
    intents = [decode_intent(o.value).latency_s for o in rig.outputs(rig.settings.intents_topic)]
    latencies_s = [latency for latency in (*recommended, *intents) if isinstance(latency, float)]
    reopened = sum(counted(worker, "partitions_reopened_total") for worker in (jumping, steady))
    fault_row(
        "clock jumps by an hour and more",
        judge(rig.settings, rig.layout),
        jumps=len(OFFSETS_S),
        latency_s_lowest=min(latencies_s),
        latency_s_highest=max(latencies_s),
        reopened=reopened,
    )
    assert len(latencies_s) >= 2 * rig.num_sent
    assert min(latencies_s) >= 0
    assert max(latencies_s) < 120
    until(lambda: counted(jumping, "publication_latency_seconds_count") > 0, 30, jumping)
    assert counted(jumping, "publication_latency_seconds_sum") >= 0
    assert reopened == 0
    assert jumping.terminate() == 0


def _has_published(worker: Worker, num: float) -> bool:
    return counted(worker, "outputs_published_total") > num
