"""More plays than a worker can answer: what waits, waits in the log. Memory stays flat, and nothing is shed."""

from __future__ import annotations

import json
import signal
import time
from functools import partial

import pytest

from stream.local_kafka.broker import Broker
from stream.ops.scrape import scrape
from tests.faults.load import START_WITHIN_S, GroupView, Load, resident_mb, serving
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig, Worker
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, counted, start_serving, until, world_plays
from tests.rigs.verdict import judge, read_all

#: Small micro-batches make a slow worker: the ratio is the point, and every play is read back and judged afterwards.
MAX_BATCH = 8
PROBE_PLAYS = 3000
#: What one poll may bring beyond the bound on what is held: it is given before the poll.
POLL_PLAYS = 2048
#: A short overload, too, must leave more in the log than the worker may hold.
MIN_RATE = 1000.0
#: A probe ends with a checkpoint, so it understates the capacity, and other processes may leave the worker more of the machine
#: later: a load that is none is doubled every so often, until three looks in a row show an overload.
OVERLOADED_WITHIN_S, RAISED_EVERY_S = 90.0, 10.0
#: A fifth of what the worker has when it has warmed up, for the allocator's habits. Buffers that grew with a backlog of
#: some 100,000 plays would take ten times that.
MAX_GROWTH_MB = 48.0


#: Far below the default, so that a short backlog exceeds it; it lasts for seconds, since overload is seen within one or two.
COALESCE_ABOVE, BACKLOG_PLAYS, BACKLOG_USERS = 2_000, 50_000, 200


def num_coalesced(rig: Rig) -> int:
    """How many recommendations others stand for, by their own account; the verdict at the end holds it against the plays."""
    found = (
        json.loads(r.value or b"").get("coalesced") for r in read_all(rig.settings, rig.settings.recommendations_topic)
    )
    return sum(one["plays"] - 1 for one in found if one)


@pytest.mark.kafka
@pytest.mark.timeout(1800)
def test_a_backlog_is_coalesced(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    """The same backlog for a worker that answers every play, one that coalesces, and one that is killed over it."""
    num_plays = BACKLOG_PLAYS * (2 if full_faults else 1)
    rig, (bundle, _) = make_serving_rig(kafka_broker, num_recommendations=3)
    announce_bundle(rig, bundle)
    with GroupView(rig.settings) as group:

        def start(bound: int) -> Worker:
            rig.produce(world_plays(rig, num_plays, num_users=BACKLOG_USERS))
            worker = start_serving(rig, INTENTREC_COALESCE_ABOVE_LAG=str(bound))
            until(partial(serving, [worker], NUM_PARTITIONS), START_WITHIN_S, worker)
            return worker

        def drained_s(worker: Worker) -> float:
            taken_s = group.catches_up(rig, timeout_s=600)
            assert worker.terminate() == 0
            return taken_s

        plain_s = drained_s(start(0))
        assert not num_coalesced(rig)
        coalesced_s = drained_s(start(COALESCE_ABOVE))
        num_away = num_coalesced(rig)
        killed = start(COALESCE_ABOVE)
        until(lambda: counted(killed, "coalesced_plays_total") > 0, START_WITHIN_S, killed)
        killed.send(signal.SIGKILL)
        drained_s(start(0))
    fault_row(
        f"three backlogs of {num_plays} plays: each answered; coalesced; coalesced, killed and taken over by one that is not",
        judge(rig.settings, rig.layout),
        plain_s=plain_s,
        coalesced_s=coalesced_s,
    )
    assert num_away > num_plays / 10


@pytest.mark.kafka
@pytest.mark.timeout(1800)
def test_twice_the_capacity(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    lasts_s = 120.0 if full_faults else 8.0
    rig, (bundle, _) = make_serving_rig(kafka_broker, max_batch=MAX_BATCH, num_recommendations=3)
    most_buffered = MAX_BATCH * rig.settings.max_buffered_batches + POLL_PLAYS
    overloaded = False
    announce_bundle(rig, bundle)
    worker = start_serving(rig)
    until(partial(serving, [worker], NUM_PARTITIONS), START_WITHIN_S, worker)
    with GroupView(rig.settings) as group:

        def rate() -> float:
            rig.produce(world_plays(rig, PROBE_PLAYS))
            return PROBE_PLAYS / group.catches_up(rig)

        rate()  # encodes everybody for the first time
        capacity = max(rate(), rate())
        memory_mb, lags, reported, buffered = [resident_mb(worker)], [0], [0.0], [0.0]
        with Load(rig, world_plays, 2 * capacity if full_faults else max(2 * capacity, MIN_RATE)) as load:
            began_s, raised_s = time.monotonic(), 0.0
            while (load_s := time.monotonic() - began_s) < lasts_s or (not overloaded and load_s < OVERLOADED_WITHIN_S):
                time.sleep(1)
                memory_mb.append(resident_mb(worker))
                lags.append(group.lag())
                overloaded = overloaded or min(lags[-3:]) > 2 * most_buffered
                if not overloaded and load_s > raised_s + RAISED_EVERY_S:
                    raised_s, load.rate = load_s, 2 * load.rate
                if samples := scrape(worker.metrics_port):
                    reported.append(samples.total("intentrec_lag_plays"))
                    buffered.append(samples.total("intentrec_buffered_plays"))
        drained_s = group.catches_up(rig, timeout_s=600)
        memory_mb.append(resident_mb(worker))
    until(lambda: counted(worker, "lag_plays") == 0, 30, worker)
    fault_row(
        f"plays at up to {load.rate / capacity:.1f} times what a probe took",
        judge(rig.settings, rig.layout),
        load_s=load_s,
        probe_plays_s=capacity,
        offered_plays_s=load.num_sent / load_s,
        served_plays_s=(load.num_sent - lags[-1]) / load_s,
        lag_highest=max(lags),
        lag_reported_highest=max(reported),
        drained_s=drained_s,
        buffered_highest=max(buffered),
        memory_mb_before=memory_mb[0],
        memory_mb_highest=max(memory_mb),
    )
    assert overloaded, "the worker was not overloaded: nothing was shown"
    assert max(reported) > 0
    assert max(buffered) <= most_buffered
    assert max(memory_mb) - memory_mb[0] < MAX_GROWTH_MB
    assert worker.terminate() == 0
