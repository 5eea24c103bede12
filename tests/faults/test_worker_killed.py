"""A worker that is killed without warning, again and again: nothing lost, nothing twice."""

from __future__ import annotations

import signal

import pytest

from stream.broker import Broker
from tests.broker_fixtures import RigMaker
from tests.fault_report import FaultRow
from tests.verdict import judge


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_kill_again_and_again(kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool) -> None:
    rig = make_rig(kafka_broker)
    workers = [rig.start_worker(), rig.start_worker()]
    num_kills = 20 if full_faults else 2
    for number in range(num_kills):
        rig.produce(rig.plays(1000), rate=300)
        workers[number % 2].send(signal.SIGKILL)
        rig.produce(rig.plays(1000), rate=300)
        workers[number % 2] = rig.start_worker()
    rig.wait_for_answers(2000 * num_kills, 120)
    fault_row("kill -9 a worker mid-batch", judge(rig.settings, rig.layout), kills=num_kills)
