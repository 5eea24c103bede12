"""The lag of a topic with transactional producers: control records and aborted plays are no plays that wait."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import confluent_kafka
import pytest

from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig
from tests.rigs.serving_rig import counted, until

#: Longer than two looks at the lag, so that plays behind a play that takes this long are seen to wait.
SLOW_S = 6


def transactions(rig: Rig, *transactions: tuple[Iterable[dict[str, Any]], bool]) -> None:
    """Sends the plays of each transaction, and commits it if true, else aborts it."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": rig.broker.address,
            "transactional.id": f"{rig.settings.app_id}-producer",
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    for plays, is_committed in transactions:
        producer.begin_transaction()
        for play in plays:
            producer.produce(rig.settings.plays_topic, key=play["user_id"].encode(), value=json.dumps(play).encode())
        producer.flush(30)
        (producer.commit_transaction if is_committed else producer.abort_transaction)(30)


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_the_lag_is_0_once_all_plays_are_committed_whatever_follows_them_in_the_log(
    kafka_broker: Broker, make_rig: RigMaker
) -> None:
    rig = make_rig(kafka_broker)
    worker = rig.start_worker()
    # After the last play of every partition come the markers of its transaction, aborted plays and their markers.
    transactions(
        rig,
        (rig.plays(80), True),
        (rig.plays(80), False),
        (rig.plays(40, item=f"slow:{SLOW_S}:"), False),
        (rig.plays(1, item=f"slow:{SLOW_S}:"), True),
        (rig.plays(80), True),
        *((rig.plays(80), False) for _ in range(5)),
    )
    rig.send(b"u0", None, headers=[("intentrec-control", b"forget")])
    rig.flush()
    until(lambda: counted(worker, "lag_plays") > 0, ANSWERS_WITHIN_S, worker)
    until(lambda: counted(worker, "plays_total") == 161, ANSWERS_WITHIN_S, worker)
    until(lambda: counted(worker, "lag_plays") == 0, ANSWERS_WITHIN_S, worker)
    assert worker.terminate() == 0
