"""Workers killed without warning, again and again, in the middle of their batches: nothing lost, nothing twice."""

from __future__ import annotations

import random
import signal
import time
from functools import partial

import pytest

from stream.local_kafka.broker import Broker
from tests.faults.load import (
    START_WITHIN_S,
    Answered,
    GroupView,
    Load,
    holds_partitions,
    resident_mb,
    serving,
    stop_mid_batch,
)
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, start_serving, until, world_plays
from tests.rigs.verdict import judge

RATE = 100.0


@pytest.mark.kafka
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_kill_again_and_again(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool, delivery: str
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker, delivery=delivery)
    announce_bundle(rig, bundle)
    workers = [start_serving(rig), start_serving(rig)]
    until(lambda: serving(workers, NUM_PARTITIONS), START_WITHIN_S, workers[0])
    chance, caught_up_s, uncommitted = random.Random(20), [], []
    with GroupView(rig.settings) as group, Answered(rig.settings) as answered:
        with Load(rig, world_plays, RATE):
            for _ in range(20 if full_faults else 1):
                victim = chance.randrange(2)
                until(partial(holds_partitions, workers[victim]), START_WITHIN_S, workers[victim])
                time.sleep(chance.uniform(1, 2))
                uncommitted.append(stop_mid_batch(workers[victim], group, answered, chance))
                workers[victim].send(signal.SIGKILL)
                killed_s = time.monotonic()
                workers[victim] = start_serving(rig)
                # Plays for the partitions that no worker serves: until they are answered it has not caught up.
                time.sleep(1)
                group.catches_up(rig, rate=RATE)
                caught_up_s.append(time.monotonic() - killed_s)
        group.catches_up(rig)
    exactly_once = delivery == "exactly_once"
    verdict = judge(rig.settings, rig.layout, isolation="read_committed" if exactly_once else "read_uncommitted")
    fault_row(
        f"kill -9 a worker mid-batch, {delivery}",
        verdict,
        kills=len(caught_up_s),
        mid_batch=sum(num > 0 for num in uncommitted),
        answered_and_not_committed=sum(uncommitted),
        plays_s=RATE,
        caught_up_s_median=sorted(caught_up_s)[len(caught_up_s) // 2],
        caught_up_s_worst=max(caught_up_s),
        worker_mb=max(resident_mb(worker, "VmHWM") for worker in workers),
    )
    # Where other tests share the cores, a start alone takes that long.
    assert max(caught_up_s) < rig.settings.session_timeout_s + (30 if full_faults else 120)
    if exactly_once:
        assert verdict.repeats == 0
    else:
        assert verdict.repeats > 0, "no kill came between outputs and their commit: nothing was shown"
