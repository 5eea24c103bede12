"""A faust-streaming of another version: the real worker names what is missing and exits, and has touched nothing."""

from __future__ import annotations

import pytest

from intentrec_core.errors import TransportMismatch
from stream.local_kafka.broker import Broker
from tests.faults.load import GroupView
from tests.rigs.fault_report import FaultRow
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, world_plays
from tests.rigs.verdict import read_all


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_a_worker_names_what_is_gone_and_ends(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    announce_bundle(rig, bundle)
    rig.produce(world_plays(rig, 20))
    gone = "faust.transport.consumer Consumer _drain_messages"
    worker = rig.start_worker(module="tests.faults.other_version", arguments=["worker"], TEST_GONE=gone)
    assert worker.wait(120) == TransportMismatch.exit_code, worker.log()[-3000:]
    assert "Traceback" not in worker.log()
    (error,) = [line for line in worker.log().splitlines() if "has no _drain_messages in faust." in line]
    assert "install faust-streaming>=" in error
    assert not rig.answers()
    assert not list(read_all(rig.settings, rig.settings.changelog_topic))
    with GroupView(rig.settings) as group:
        assert group.lag() == 20
    fault_row("faust-streaming without a private name", exit_code=TransportMismatch.exit_code, error=error)
