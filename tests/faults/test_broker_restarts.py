"""The broker killed or restarted under load, alone and as one of three: nothing lost, no worker stuck, buffers bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import confluent_kafka
import pytest

from intentrec_core.errors import Fenced
from stream.local_kafka.cluster import KafkaCluster, start_cluster
from tests.faults.load import GroupView, Load, livez, resident_mb, serving
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig, Worker
from tests.rigs.serving_rig import until
from tests.rigs.verdict import judge

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

RATE = 200.0
#: Of a worker that holds a few megabytes of histories: more growth than this is a buffer without a bound.
MAX_GROWTH_MB = 150.0
#: How long plays may wait once a broker, or two of three, are up.
STUCK_S = 60.0
#: Of /livez, where the broker is away for longer.
PROGRESS_DEADLINE_S = 7.0


def test_one_node_killed(
    tmp_path: Path, kafka_jars: None, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    with start_cluster(num_nodes=1, data_dir=tmp_path / "kafka") as cluster:
        rig, workers = _two_workers(make_rig, cluster, progress_deadline_s=PROGRESS_DEADLINE_S)
        # Shorter than every timeout; longer than the session's; longer than a transaction's, so that partitions reopen.
        # The longest is longer than the deadline of /livez as well.
        downtimes_s = [1.0, 8.0, 25.0] if full_faults else [12.0]

        def fault(index: int) -> None:
            cluster.brokers[0].kill()
            back_s = time.monotonic() + downtimes_s[index]
            while time.monotonic() < back_s:
                assert [livez(worker)[0] for worker in workers] == [200, 200], "who waits for the broker does not hang"
                time.sleep(0.5)
            cluster.restart(0)

        _endure(rig, workers, fault_row, "kill -9 the only broker", fault, num_faults=len(downtimes_s))


def test_three_nodes_one_after_the_other(
    tmp_path: Path, kafka_jars: None, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    with start_cluster(num_nodes=3, data_dir=tmp_path / "kafka") as cluster:
        rig, workers = _two_workers(make_rig, cluster)
        metadata = _metadata(cluster)
        topics = (rig.settings.plays_topic, rig.settings.changelog_topic, "__transaction_state", "__consumer_offsets")
        copies = {len(p.replicas) for topic in topics for p in metadata.topics[topic].partitions.values()}
        assert copies == {3}, "the cluster's own topics as well"

        def kill(index: int) -> None:
            cluster.brokers[index].kill()

        def in_sync(_: int) -> None:
            _wait_until_in_sync(cluster)

        def bring_back(index: int) -> None:
            cluster.restart(index)
            _wait_until_in_sync(cluster)

        def restart(index: int) -> None:
            cluster.restart(index % 3)

        name = "kill -9 one of three brokers"
        if not full_faults:
            _endure(rig, workers, fault_row, name, kill, num_faults=1)
        else:
            _endure(rig, workers, fault_row, name, kill, bring_back, num_faults=3)
            _endure(rig, workers, fault_row, "rolling restart of three brokers", restart, in_sync, num_faults=6)


def _two_workers(make_rig: RigMaker, cluster: KafkaCluster, **options: float) -> tuple[Rig, list[Worker]]:
    rig = make_rig(cluster, **options)
    workers = [rig.start_worker(), rig.start_worker()]
    until(lambda: serving(workers, NUM_PARTITIONS), 90, workers[0])
    rig.produce(rig.plays(200))
    with GroupView(rig.settings) as group:
        group.catches_up(rig)
    return rig, workers


def _endure(
    rig: Rig,
    workers: list[Worker],
    fault_row: FaultRow,
    name: str,
    fault: Callable[[int], None],
    mend: Callable[[int], None] = lambda _: None,
    *,
    num_faults: int,
) -> None:
    """Faults under load. After each the group has to catch up, then it is mended.

    The same workers live through all of them, but for one whose plays in flight the other has taken over: where the broker
    is away for longer than a session lasts and the two are not back at once, it is fenced and ends, to be started again.
    """
    before_mb, caught_up_s, num_fenced = max(map(resident_mb, workers)), [], 0
    with GroupView(rig.settings) as group:
        with Load(rig, Rig.plays, RATE):
            for index in range(num_faults):
                time.sleep(1)
                fault(index)
                caught_up_s.append(group.catches_up(rig, rate=RATE))
                mend(index)
                num_fenced += _start_again_who_was_fenced(rig, workers)
        group.catches_up(rig)
    num_fenced += _start_again_who_was_fenced(rig, workers)
    peak_mb = max(resident_mb(worker, "VmHWM") for worker in workers)
    fault_row(
        name,
        judge(rig.settings, rig.layout),
        faults=num_faults,
        fenced=num_fenced,
        plays_s=RATE,
        caught_up_s_worst=max(caught_up_s),
        worker_mb=peak_mb,
        worker_mb_before=before_mb,
    )
    assert [worker.process.poll() for worker in workers] == [None, None], workers[0].log()[-3000:]
    assert max(caught_up_s) < STUCK_S
    assert peak_mb - before_mb < MAX_GROWTH_MB


def _start_again_who_was_fenced(rig: Rig, workers: list[Worker]) -> int:
    """As whatever runs workers would; returns how many. Any other end is a failure.

    Who is fenced learns it when it commits next: until they serve all partitions between them, one may be about to end.
    """
    ended: list[int] = []

    def settled() -> bool:
        ended[:] = [index for index, worker in enumerate(workers) if worker.process.poll() is not None]
        return bool(ended) or serving(workers, NUM_PARTITIONS)

    until(settled, 90, workers[0])
    assert len(ended) < len(workers), "who takes over is not fenced"
    for index in ended:
        assert workers[index].process.returncode == Fenced.exit_code, workers[index].log()[-3000:]
        assert "has a newer owner" in workers[index].log()
        workers[index] = rig.start_worker()
    if ended:
        until(lambda: serving(workers, NUM_PARTITIONS), 90, workers[0])
    return len(ended)


def _metadata(cluster: KafkaCluster) -> confluent_kafka.admin.ClusterMetadata:
    client = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "metadata", "log_level": 0})
    try:
        return client.list_topics(timeout=30)
    finally:
        client.close()


def _wait_until_in_sync(cluster: KafkaCluster) -> None:
    """Returns when every copy of every partition is in sync: what a rolling restart waits for before the next node."""
    deadline_s = time.monotonic() + 120
    while True:
        topics = _metadata(cluster).topics
        behind = [
            f"{name}-{partition.id}"
            for name, topic in topics.items()
            for partition in topic.partitions.values()
            if len(partition.isrs) < len(partition.replicas)
        ]
        if topics and not behind:
            return
        assert time.monotonic() < deadline_s, f"never in sync: {behind}"
        time.sleep(0.5)
