"""Each call to a real Kafka that a worker awaits fails, before and after its effect: reopened, nothing lost."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from stream.local_kafka.broker import Broker
from tests.faults.failing_calls import names
from tests.faults.load import GroupView, Load
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig
from tests.rigs.serving_rig import counted, until
from tests.rigs.verdict import judge

RATE = 300
#: Some for every partition.
NUM_AFTERWARDS = 200


@pytest.mark.kafka
@pytest.mark.timeout(600)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_call_fails_before_and_after_its_effect(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool, delivery: str
) -> None:
    rig = make_rig(kafka_broker, delivery=delivery)
    num_failures = 5 if full_faults else 1
    worker = rig.start_worker(module="tests.faults.failing_calls", TEST_FAILURES=str(num_failures))
    wanted = dict.fromkeys(names(delivery), num_failures)

    def failed() -> Counter[str]:
        return Counter(re.findall(r"WARNING injected (.*)", worker.log()))

    with GroupView(rig.settings) as group:
        with Load(rig, Rig.plays, RATE):
            until(lambda: failed() == wanted, 300, worker)
        # The group can hold a commit whose answer was lost, of a partition that is still to be opened again: only plays that come
        # after the last failure are committed by a partition that was.
        rig.produce(rig.plays(NUM_AFTERWARDS))
        group.catches_up(rig)
    # A commit whose answer was lost is not counted; what was done twice is counted once.
    until(lambda: counted(worker, "plays_total") > 0.8 * rig.num_sent, 30, worker)
    reopened = counted(worker, "partitions_reopened_total")
    applied = int(counted(worker, "plays_total"))
    assert worker.terminate() == 0, worker.log()[-3000:]
    isolation = "read_committed" if delivery == "exactly_once" else "read_uncommitted"
    verdict = judge(rig.settings, rig.layout, isolation=isolation)
    fault_row(f"a call to the broker fails, {delivery}", verdict, failures=sum(wanted.values()), reopened=int(reopened))
    assert reopened > 0
    assert 0.8 * verdict.plays < applied <= verdict.plays
    if delivery == "exactly_once":
        assert verdict.repeats == 0
