"""State and log that disagree are refused with the remedy, on a real broker; nothing is folded onto a wrong state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from stream.delivery.start_offset import CLOCK_SLACK_MS
from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig
from tests.rigs.verdict import judge

pytestmark = [pytest.mark.timeout(180)]


def recreate(rig: Rig, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": rig.broker.address})
    admin.delete_topics([topic])[topic].result(30)
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            admin.create_topics([NewTopic(topic, NUM_PARTITIONS, 1)])[topic].result(30)
        except confluent_kafka.KafkaException:
            time.sleep(0.3)  # the deletion is not through yet
        else:
            return
    pytest.fail(f"{topic} was not created again")


def _recreate_and_refill(rig: Rig) -> None:
    """With more plays than there were: its end says nothing."""
    recreate(rig, rig.settings.plays_topic)
    time.sleep(CLOCK_SLACK_MS / 1000 + 1)
    rig.produce(rig.plays(1000))


def add_partitions(rig: Rig) -> None:
    admin = AdminClient({"bootstrap.servers": rig.broker.address})
    topic = rig.settings.plays_topic
    admin.create_partitions([NewPartitions(topic, 2 * NUM_PARTITIONS)])[topic].result(30)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("break_it", "environment", "expected"),
    [
        (lambda rig: recreate(rig, rig.settings.changelog_topic), {}, "no marker: it was emptied"),
        (lambda rig: recreate(rig, rig.settings.plays_topic), {}, "created anew"),
        (_recreate_and_refill, {}, "the plays topic was created anew"),
        (add_partitions, {}, "members would not be where their plays are"),
        (lambda rig: None, {"TEST_DOMAIN": "video"}, "folded under another domain"),
    ],
    ids=["changelog emptied", "plays re-created", "plays re-created and refilled", "more partitions", "another domain"],
)
def test_disagreement_ends_the_worker_before_anything_is_written(
    kafka_broker: Broker,
    make_rig: RigMaker,
    fault_row: FaultRow,
    request: pytest.FixtureRequest,
    break_it: Callable[[Rig], None],
    environment: dict[str, str],
    expected: str,
) -> None:
    rig = make_rig(kafka_broker)
    first = rig.start_worker()
    rig.produce(rig.plays(200))
    rig.wait_for_answers(200)
    assert first.terminate() == 0
    break_it(rig)
    second = rig.start_worker(**environment)
    assert second.wait(60) == 5, second.log()[-2000:]
    refusal = next(line for line in second.log().splitlines() if line.startswith("error: "))
    assert expected in refusal
    assert sum(rig.answers().values()) == 400, "nothing was answered again"
    fault_row(f"refused at the start: {request.node.callspec.id}", exit_code=5, error=expected)


def test_plays_that_another_partitioner_placed_are_dead_lettered(
    broker: Broker, make_rig: RigMaker, fault_row: FaultRow
) -> None:
    rig = make_rig(broker)
    worker = rig.start_worker()
    rig.produce(rig.plays(40))
    rig.wait_for_answers(40)
    stray = {"event_id": "stray", "user_id": "newcomer", "item_id": "i", "ts": rig.began_ms}
    for partition in range(NUM_PARTITIONS):
        rig.send(b"newcomer", json.dumps(stray | {"event_id": f"stray{partition}"}).encode(), partition=partition)
    rig.flush()
    rig.wait_for_answers(41)
    rig.wait_for_outputs(NUM_PARTITIONS - 1, rig.settings.dead_letter_topic)
    assert worker.terminate() == 0
    letters = rig.outputs(rig.settings.dead_letter_topic)
    assert len(letters) == NUM_PARTITIONS - 1
    assert {letter.headers["intentrec-error"] for letter in letters} == {b"wrong_partition"}
    assert b"murmur2" in letters[0].headers["intentrec-detail"]
    fault_row(
        f"keys partitioned otherwise, {broker.engine}", judge(rig.settings, rig.layout), dead_letters=len(letters)
    )


@pytest.mark.kafka  # the embedded broker makes up a topic that is only looked at
def test_a_worker_without_topics_says_how_to_make_them(kafka_broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(kafka_broker)
    worker = rig.start_worker(INTENTREC_LATE_TOPIC="never-made")
    assert worker.wait(60) == 6
    assert "no topic never-made" in worker.log()
    assert "intentrec topics" in worker.log()


def test_a_worker_without_a_broker_says_so(embedded_broker: Broker, make_rig: RigMaker) -> None:
    worker = make_rig(embedded_broker).start_worker(INTENTREC_BROKER="127.0.0.1:1")
    assert worker.wait(60) == 6
    assert "no broker at 127.0.0.1:1" in worker.log()
