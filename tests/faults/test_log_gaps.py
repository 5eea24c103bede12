"""Gaps in the plays' offsets: the end of a transaction is no loss; plays that retention deleted are, and are named."""

from __future__ import annotations

import json
import signal
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from stream.local_kafka.broker import Broker
from tests.faults.load import GroupView
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig
from tests.rigs.serving_rig import counted, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

#: Longer than a broker holds a fetch: the one that a stopped worker has under way is answered, with nothing.
FETCH_UNDER_WAY_S = 2.0


def test_gaps_that_transactions_leave_in_the_log_are_no_losses(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow
) -> None:
    rig = make_rig(kafka_broker)
    worker = rig.start_worker()
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": kafka_broker.address,
            "partitioner": "murmur2_random",
            "transactional.id": rig.settings.app_id,
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    num_committed = 0
    for number in range(30):
        producer.begin_transaction()
        for play in rig.plays(10):
            producer.produce(rig.settings.plays_topic, key=play["user_id"].encode(), value=json.dumps(play).encode())
        if number % 3 == 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            num_committed += 10
    rig.wait_for_answers(num_committed)
    reopened = counted(worker, "partitions_reopened_total")
    assert worker.terminate() == 0
    answers = rig.answers()
    assert set(answers.values()) == {1}
    assert len(answers) == 2 * num_committed
    assert reopened == 0
    assert rig.state() == rig.oracle()
    fault_row("plays produced in transactions, every third aborted", plays=num_committed, reopened=int(reopened))


def test_plays_that_are_deleted_before_a_running_worker_has_read_them_are_named(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow
) -> None:
    rig = make_rig(kafka_broker, session_timeout_s=45)  # so that it is still a member when it goes on
    worker = rig.start_worker()
    rig.produce(rig.plays(50, num_users=1))
    rig.wait_for_answers(50)
    with GroupView(rig.settings) as group:
        group.catches_up(rig)
    (source,) = {tuple(output.id.rsplit("-", 3)[:2]) for output in rig.outputs(rig.settings.intents_topic)}
    partition = int(source[1])
    worker.send(signal.SIGSTOP)
    time.sleep(FETCH_UNDER_WAY_S)
    rig.produce(rig.plays(61, num_users=1))
    _delete(rig, partition, 80)
    worker.send(signal.SIGCONT)
    rig.produce(rig.plays(20, num_users=1))
    with GroupView(rig.settings) as group:
        group.catches_up(rig)
    until(lambda: "were deleted by the topic's retention before they were read" in worker.log(), 30, worker)
    until(lambda: counted(worker, "partitions_reopened_total", reason="rewound") >= 1, 30, worker)
    rewound = counted(worker, "partitions_reopened_total", reason="rewound")
    assert worker.terminate() == 0
    answered = {int(output.id.split("-")[-2]) for output in rig.outputs(rig.settings.intents_topic)}
    assert answered == {*range(50), *range(80, 131)}
    num_folded = rig.state()["u0"].count
    assert num_folded == 101
    assert rewound == 1
    fault_row("plays deleted before they were read", plays=131, deleted=131 - num_folded, reopened=int(rewound))


def _delete(rig: Rig, partition: int, before_offset: int) -> None:
    """As the topic's retention would."""
    admin = AdminClient({"bootstrap.servers": rig.broker.address})
    until_there = confluent_kafka.TopicPartition(rig.settings.plays_topic, partition, before_offset)
    admin.delete_records([until_there])[until_there].result(30)
