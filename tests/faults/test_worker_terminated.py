"""Workers on SIGTERM: under load they drain and leave nothing to replay; with a hanging batch they exit at the deadline."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest

from stream.local_kafka.broker import Broker
from stream.worker_process import EXIT_NOT_DRAINED
from tests.faults.load import START_WITHIN_S, GroupView, Load, serving
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, start_serving, until, world_plays
from tests.rigs.verdict import judge
from tests.worlds.counting import SLOW_SAID

RATE = 100.0


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_sigterm_under_load(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    announce_bundle(rig, bundle)
    worker, ended_s = start_serving(rig), []
    with GroupView(rig.settings) as group:
        with Load(rig, world_plays, RATE):
            for _ in range(5 if full_faults else 1):
                until(partial(serving, [worker], NUM_PARTITIONS), START_WITHIN_S, worker)
                group.catches_up(rig, rate=RATE)
                began_s = time.monotonic()
                code = worker.terminate()
                ended_s.append(time.monotonic() - began_s)
                assert code == 0, worker.log()[-3000:]
                worker = start_serving(rig)
        group.catches_up(rig)
    verdict = judge(rig.settings, rig.layout)
    fault_row("SIGTERM under load", verdict, ends=len(ended_s), plays_s=RATE, ended_s_worst=max(ended_s))
    assert max(ended_s) < 30
    assert verdict.repeats == 0, "an orderly end leaves nothing to replay"


@pytest.mark.timeout(180)
def test_sigterm_with_a_hung_batch(broker: Broker, make_rig: RigMaker, fault_row: FaultRow) -> None:
    deadline_s = 3.0
    rig = make_rig(broker, drain_deadline_s=deadline_s)
    worker = rig.start_worker()
    with GroupView(rig.settings) as group:
        rig.produce(rig.plays(100))
        group.catches_up(rig)
        rig.produce(rig.plays(1, item="slow:9:"))
        until(lambda: SLOW_SAID in worker.log(), 60, worker)
        rig.produce(rig.plays(100))
        began_s = time.monotonic()
        worker.send(signal.SIGTERM)
        code = worker.wait()
        ended_s = time.monotonic() - began_s
        assert group.lag() > 0, "what hung was not committed"
        rig.start_worker()
        group.catches_up(rig)
    verdict = judge(rig.settings, rig.layout)
    fault_row(f"SIGTERM with a hung batch, {broker.engine} broker", verdict, ended_s=ended_s, deadline_s=deadline_s)
    assert code == EXIT_NOT_DRAINED
    assert ended_s < deadline_s + 5
