"""The plays topic changes under running workers: they end with the remedy, and nothing is folded onto a wrong state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stream.local_kafka.broker import Broker
from tests.faults.load import GroupView
from tests.integration.test_refusals import add_partitions, recreate
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig
from tests.rigs.verdict import restored


def _recreate(rig: Rig) -> None:
    recreate(rig, rig.settings.plays_topic)


@pytest.mark.kafka
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("change", "expected"),
    [(add_partitions, ("members have moved", "members would not be")), (_recreate, ("created anew",))],
    ids=["given more partitions", "created anew"],
)
def test_the_plays_topic_changes_under_a_running_worker(
    kafka_broker: Broker,
    make_rig: RigMaker,
    fault_row: FaultRow,
    full_faults: bool,
    request: pytest.FixtureRequest,
    change: Callable[[Rig], None],
    expected: tuple[str, ...],
) -> None:
    if not full_faults:
        pytest.skip("aiokafka notices after a minute: with --full-faults")
    rig = make_rig(kafka_broker)
    worker = rig.start_worker()
    with GroupView(rig.settings) as group:
        rig.produce(rig.plays(400))
        group.catches_up(rig)
    before = restored(rig.settings, rig.layout)
    change(rig)
    assert worker.wait(240) == 5, worker.log()[-3000:]
    refusal = next(line for line in worker.log().splitlines() if line.startswith("error: "))
    assert any(text in refusal for text in expected), refusal
    assert restored(rig.settings, rig.layout) == before, "nothing was written"
    fault_row(f"plays topic {request.node.callspec.id} under a running worker", exit_code=5, error=refusal[7:])
