"""The broker goes away under a worker: /readyz says so, the log has no tracebacks, and the end says what is not committed."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from stream.local_kafka.broker import start_broker
from stream.ops.scrape import is_ready
from stream.worker_process import EXIT_NOT_DRAINED
from tests.rigs.rig import Worker
from tests.rigs.serving_rig import (
    ServingRigMaker,
    announce_bundle,
    counted,
    start_serving,
    until,
    wait_ready,
    world_plays,
)

#: Shorter than the drain deadline: the commit fails, and the process is not forced to end.
TRANSACTION_TIMEOUT_S = 2


def why_not_ready(worker: Worker) -> str:
    """The text of /readyz; empty where it says yes."""
    try:
        with urlopen(f"http://127.0.0.1:{worker.metrics_port}/readyz", timeout=5):
            return ""
    except HTTPError as error:
        with error:
            return error.read().decode()


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_worker_says_that_the_broker_is_away_and_that_its_last_plays_are_not_committed(
    tmp_path: Path, kafka_jars: None, make_serving_rig: ServingRigMaker
) -> None:
    with start_broker(engine="kafka", data_dir=tmp_path / "kafka") as broker:
        rig, (bundle, _) = make_serving_rig(
            broker, delivery="exactly_once", transaction_timeout_s=TRANSACTION_TIMEOUT_S, commit_interval_s=5
        )
        announce_bundle(rig, bundle)
        worker = start_serving(rig)
        wait_ready(worker)
        for line in ("importing", "connecting", "loading bundle", "is loaded", "joining", "restored", "ready: all 4"):
            assert line in worker.log(), "a start is not silent"
        rig.produce(world_plays(rig, 200))
        # Processed, and not committed before the broker is gone.
        until(lambda: counted(worker, "stage_seconds_count", stage="messages") > 0, 60, worker)
        broker.kill()
        until(lambda: not is_ready(worker.metrics_port), 30, worker)
        assert why_not_ready(worker) == f"the broker {broker.address} does not answer\n"
        worker.send(signal.SIGTERM)
        assert worker.wait(60) == EXIT_NOT_DRAINED
    log = worker.log()
    assert not re.search("Traceback|never retrieved|AssertionError", log), log[-5000:]
    assert re.search(
        r"^intentrec: the last plays of \S+, partition [0-3, ]+, were processed but not committed", log, re.M
    )
