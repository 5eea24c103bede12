"""Workers that join and leave all the time: every change is a rebalance, and none of them loses or doubles a play."""

from __future__ import annotations

import random
import time

import pytest

from stream.local_kafka.broker import Broker
from stream.ops.scrape import scrape
from tests.faults.load import START_WITHIN_S, GroupView, Load, serving
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig
from tests.rigs.serving_rig import until
from tests.rigs.verdict import judge

RATE = 200.0
CHANGE_EVERY_S = 5.0
MAX_WORKERS = 4
SETTLED_WITHIN_S = 60.0


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_workers_join_and_leave(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    rig = make_rig(kafka_broker)
    chance, num_changes = random.Random(1), 36 if full_faults else 3
    alive, left = [rig.start_worker()], []
    with GroupView(rig.settings) as group:
        with Load(rig, Rig.plays, RATE):
            until(lambda: serving(alive, NUM_PARTITIONS), START_WITHIN_S, alive[0])
            for _ in range(num_changes):
                # Only who has come may go: before that there are no signal handlers yet.
                leavers = [worker for worker in alive if scrape(worker.metrics_port)] if len(alive) > 1 else []
                if leavers and (len(alive) == MAX_WORKERS or chance.random() < 0.5):
                    leaver = chance.choice(leavers)
                    alive.remove(leaver)
                    left.append(leaver)
                    leaver.process.terminate()
                else:
                    alive.append(rig.start_worker())
                changed_s = time.monotonic()
                time.sleep(CHANGE_EVERY_S)
            until(lambda: serving(alive, NUM_PARTITIONS), START_WITHIN_S, alive[0])
            group.catches_up(rig, rate=RATE)
            settled_s = time.monotonic() - changed_s
        group.catches_up(rig)
    verdict = judge(rig.settings, rig.layout)
    fault_row(
        f"a worker joins or leaves every {CHANGE_EVERY_S:.0f} s",
        verdict,
        changes=num_changes,
        left=len(left),
        settled_s=settled_s,
    )
    assert [worker.wait() for worker in left] == [0] * len(left), "\n".join(worker.log()[-1500:] for worker in left)
    assert settled_s < SETTLED_WITHIN_S * (1 if full_faults else 2)
