"""Commits hang while plays come: what a worker takes and cannot commit is bounded, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.delivery.transport import _MAX_POLL_RECORDS
from stream.local_kafka.broker import Broker
from tests.faults.load import Answered, GroupView
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.serving_rig import wait_ready
from tests.rigs.verdict import judge

MAX_UNCOMMITTED = 1024
#: Far more than may be taken: the bound, and the poll that passes it.
NUM_PLAYS = 4 * (MAX_UNCOMMITTED + _MAX_POLL_RECORDS)


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_while_commits_hang_no_more_is_taken_than_the_bound_and_a_poll(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, tmp_path: Path
) -> None:
    rig, switch = make_rig(kafka_broker, max_uncommitted=MAX_UNCOMMITTED), tmp_path / "blocked"
    worker = rig.start_worker(module="tests.faults.hanging_calls", TEST_HANGS="commit", TEST_SWITCH=str(switch))
    wait_ready(worker)
    answered, most = Answered(rig.settings), 0
    with answered, GroupView(rig.settings) as group:
        rig.produce(rig.plays(200))
        group.catches_up(rig)
        switch.touch()
        rig.produce(rig.plays(NUM_PLAYS))
        committed = group.committed()
        while True:
            taken = sum(offset + 1 - committed[partition] for partition, offset in answered.newest().items())
            # From the first transaction's time-out on, partitions are opened again one by one, and take their plays again.
            if "opening it again" in worker.log():
                break
            most = max(most, taken)
        switch.unlink()
        group.catches_up(rig)
    assert worker.terminate() == 0, worker.log()[-3000:]
    verdict = judge(rig.settings, rig.layout)
    fault_row("commits hang while plays come", verdict, plays_waiting=NUM_PLAYS, most_taken_uncommitted=most)
    assert MAX_UNCOMMITTED <= most <= MAX_UNCOMMITTED + _MAX_POLL_RECORDS
