"""A recovery past its deadline ends the process; a consumer that stops progressing fails /livez."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream.local_kafka.broker import Broker
from tests.faults.load import Load, livez
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig
from tests.rigs.serving_rig import counted, until, wait_ready
from tests.rigs.verdict import judge

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.mark.parametrize("where", ["restore", "restore thread"])
def test_a_recovery_that_hangs_past_its_deadline_ends_the_process(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, where: str
) -> None:
    rig = make_rig(kafka_broker, recovery_deadline_s=4, drain_deadline_s=5)
    first = rig.start_worker()
    rig.produce(rig.plays(200))
    rig.wait_for_answers(200)
    assert first.terminate() == 0
    rig.produce(rig.plays(200))
    stuck = rig.start_worker(module="tests.faults.hanging_calls", TEST_HANGS=where)
    until(lambda: "was not restored within 4 s" in stuck.log() or stuck.process.poll() is not None, 90, stuck)
    told_s = time.monotonic()
    assert stuck.wait(60) == 5, stuck.log()[-3000:]
    ended_s = time.monotonic() - told_s
    assert "raise recovery_deadline_s if its changelog is that large" in stuck.log()
    successor = rig.start_worker()
    rig.wait_for_answers(400)
    assert successor.terminate() == 0
    fault_row(f"a recovery hangs ({where})", judge(rig.settings, rig.layout), exit_code=5, ended_s=ended_s)


def test_a_consumer_that_stops_progressing_fails_its_liveness(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, tmp_path: Path
) -> None:
    rig, switch = make_rig(kafka_broker, progress_deadline_s=5), tmp_path / "stuck"
    stuck = rig.start_worker(module="tests.faults.hanging_calls", TEST_HANGS="fetch", TEST_SWITCH=str(switch))
    wait_ready(stuck)
    rig.produce(rig.plays(200))
    rig.wait_for_answers(200)
    switch.touch()
    time.sleep(rig.settings.progress_deadline_s + 1)
    assert livez(stuck) == (200, "ok\n"), "with nothing to do, no worker is stuck"
    rig.produce(rig.plays(200))
    began_s = time.monotonic()
    until(lambda: livez(stuck)[0] == 503, 60, stuck)
    failed_s = time.monotonic() - began_s
    assert "no progress for" in livez(stuck)[1]
    assert stuck.terminate() == 0, "what is restarted for its liveness still ends in good order"
    rig.start_worker()
    rig.wait_for_answers(400)
    fault_row("a consumer stops progressing", judge(rig.settings, rig.layout), livez_failed_s=failed_s)


def test_one_partition_that_stops_progressing_fails_the_liveness_whatever_the_others_get_done(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, tmp_path: Path
) -> None:
    rig, switch = make_rig(kafka_broker, progress_deadline_s=5), tmp_path / "stuck"
    where = {"TEST_HANGS": "fetch of partition 0", "TEST_SWITCH": str(switch)}
    stuck = rig.start_worker(module="tests.faults.hanging_calls", **where)
    wait_ready(stuck)
    with Load(rig, Rig.plays, rate=50):
        time.sleep(rig.settings.progress_deadline_s + 1)
        assert livez(stuck) == (200, "ok\n"), "under load, no worker is stuck"
        switch.touch()
        until(lambda: counted(stuck, "plays_total") > 0, 60, stuck)
        began_s, num_before = time.monotonic(), counted(stuck, "plays_total")
        until(lambda: livez(stuck)[0] == 503, 60, stuck)
        failed_s, num_meanwhile = time.monotonic() - began_s, counted(stuck, "plays_total") - num_before
        assert stuck.terminate() == 0, "what is restarted for its liveness still ends in good order"
    assert num_meanwhile > 50, "the other partitions went on"
    rig.start_worker()
    rig.wait_for_answers(rig.num_sent)
    fault_row("one partition stops progressing", judge(rig.settings, rig.layout), livez_failed_s=failed_s)
