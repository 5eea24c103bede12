"""One of two workers is cut off from the broker and comes back: a zombie with late packets. Nothing lost, nothing twice.

What becomes of the zombie depends on what it had in flight:

    plays       answered and not committed: the checkpoint is refused by the fence of its successor, and it ends with exit code 6
    nothing     it hears that it is no longer a member, drops what it has, joins again and serves; unless a fetch that it asked
                for during the cut is answered first: then it has plays to commit, and ends as above
    no more     plays whose outputs were not acknowledged within a minute were given up: as with nothing
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from intentrec_core.errors import Fenced
from stream.kafka.publisher import ACKNOWLEDGED_WITHIN_S
from stream.local_kafka.cluster import KafkaCluster
from stream.local_kafka.ports import HOST
from tests.faults.load import GroupView, Load, holds_partitions, resident_mb, serving
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig, Worker
from tests.rigs.serving_rig import counted, until
from tests.rigs.tcp_proxy import TcpProxy
from tests.rigs.verdict import judge, read_all
from tests.worlds.counting import ANSWERS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

RATE = 200.0
#: A buffer without a bound would have grown by more while nothing could be sent.
MAX_WORKER_MB = 300.0
#: A segment is closed after a second, and whatever is closed is cleaned as soon as the cleaner looks.
COMPACTED_AT_ONCE = {
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "0",
}


def test_a_cut_shorter_than_the_session_moves_no_partition(
    proxied_cluster: KafkaCluster, proxy: TcpProxy, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    if not full_faults:
        pytest.skip("the shorter selection takes the cuts that move partitions")
    rig = make_rig(proxied_cluster, session_timeout_s=30)
    cut_off, other = _two_workers(rig, proxy)
    with GroupView(rig.settings) as group:
        with Load(rig, Rig.plays, RATE):
            proxy.cut()
            time.sleep(10)
            held_meanwhile = counted(other, "partitions_ready")
            proxy.heal()
            caught_up_s = group.catches_up(rig, rate=RATE)
        group.catches_up(rig)
    _report(fault_row, "network cut of 10 s, session timeout 30 s", rig, caught_up_s=caught_up_s)
    assert held_meanwhile == NUM_PARTITIONS / 2
    assert serving([cut_off, other], NUM_PARTITIONS), "as before the cut"
    assert [cut_off.terminate(), other.terminate()] == [0, 0], cut_off.log()[-3000:]


def test_a_zombie_with_nothing_in_flight_joins_again_or_is_fenced(
    proxied_cluster: KafkaCluster, proxy: TcpProxy, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    rig = make_rig(proxied_cluster)
    zombie, successor = _two_workers(rig, proxy)
    cut_s = 90 if full_faults else 10

    def decided() -> bool:
        both_serve = holds_partitions(zombie) and serving([zombie, successor], NUM_PARTITIONS)
        return both_serve or zombie.process.poll() is not None

    with GroupView(rig.settings) as group:
        proxy.cut()
        cut_at_s = time.monotonic()
        # The broker answers the zombie's last fetch within fetch_wait_ms; a play sent earlier would be in that answer, in flight.
        # The cut hides the answer from this test, so time is all there is to wait for.
        time.sleep(1 + rig.settings.fetch_wait_ms / 1000)
        with Load(rig, Rig.plays, RATE):
            until(lambda: counted(successor, "partitions_ready") == NUM_PARTITIONS, 60, successor)
            taken_over_s = time.monotonic() - cut_at_s
            caught_up_s = group.catches_up(rig, rate=RATE) + taken_over_s
            time.sleep(max(0.0, cut_at_s + cut_s - time.monotonic()))
            proxy.heal()
            healed_at_s = time.monotonic()
            until(decided, 90, zombie)
            back_s = time.monotonic() - healed_at_s
            group.catches_up(rig, rate=RATE)
        group.catches_up(rig)
    code = zombie.process.poll()
    _report(
        fault_row, f"network cut of {cut_s} s, nothing in flight", rig,
        taken_over_s=taken_over_s, caught_up_s=caught_up_s,
        zombie=f"rejoined in {back_s:.1f} s" if code is None else f"fenced, exit {code}",
    )  # fmt: skip
    assert caught_up_s < rig.settings.session_timeout_s + 30
    if code is None:
        assert zombie.terminate() == 0
    else:
        assert code == Fenced.exit_code, zombie.log()[-3000:]
        assert "has a newer owner" in zombie.log()
    assert successor.terminate() == 0


@pytest.mark.parametrize("compacted", [True, False])
def test_a_zombie_with_plays_in_flight_is_fenced_and_ends(
    proxied_cluster: KafkaCluster,
    proxy: TcpProxy,
    make_rig: RigMaker,
    fault_row: FaultRow,
    full_faults: bool,
    compacted: bool,
    tmp_path: Path,
) -> None:
    if not (compacted or full_faults):
        pytest.skip("the shorter selection takes the harder of the two")
    rig = make_rig(proxied_cluster)
    if compacted:
        _configure(rig, rig.settings.changelog_topic, COMPACTED_AT_ONCE)
    switch = tmp_path / "no checkpoint is begun"
    zombie, successor = _two_workers(
        rig, proxy, module="tests.faults.hanging_calls", TEST_HANGS="checkpoint", TEST_SWITCH=str(switch)
    )
    cut_s = 90 if full_faults else 10
    with GroupView(rig.settings) as group:
        # What the zombie has answered and not committed when the network goes; nothing else, which it would give up in time.
        def num_published() -> float:
            return sum(counted(worker, "outputs_published_total") for worker in (zombie, successor))

        num_before, num_plays = num_published(), 10 * NUM_PARTITIONS
        switch.touch()
        rig.produce(rig.plays(num_plays))
        until(lambda: num_published() == num_before + len(ANSWERS) * num_plays, 30, zombie)
        proxy.cut()
        cut_at_s = time.monotonic()
        with Load(rig, Rig.plays, RATE):
            before = _changelog(rig)
            until(lambda: counted(successor, "partitions_ready") == NUM_PARTITIONS, 60, successor)
            taken_over_s = time.monotonic() - cut_at_s
            caught_up_s = group.catches_up(rig, rate=RATE) + taken_over_s
            if compacted:
                until(partial(_is_compacted, rig, before), 120, successor)
            time.sleep(max(0.0, cut_at_s + cut_s - time.monotonic()))
            switch.unlink()
            proxy.heal()
            code = zombie.wait(90)
        group.catches_up(rig)
    _report(
        fault_row, f"network cut of {cut_s} s, plays in flight{', changelog compacted' * compacted}", rig,
        taken_over_s=taken_over_s, caught_up_s=caught_up_s, zombie_exit=code,
    )  # fmt: skip
    assert code == Fenced.exit_code, zombie.log()[-3000:]
    assert "has a newer owner" in zombie.log()
    assert caught_up_s < rig.settings.session_timeout_s + 30
    assert successor.terminate() == 0


def test_a_zombie_that_gave_its_plays_up_meanwhile_joins_again(
    proxied_cluster: KafkaCluster, proxy: TcpProxy, make_rig: RigMaker, fault_row: FaultRow, full_faults: bool
) -> None:
    if not full_faults:
        pytest.skip("a cut longer than a worker waits for its outputs takes minutes")
    rig = make_rig(proxied_cluster)
    zombie, successor = _two_workers(rig, proxy)
    cut_s = ACKNOWLEDGED_WITHIN_S + 30
    with GroupView(rig.settings) as group:
        # The slow plays hold up all that follow: these wait, and no transaction is open when the network goes.
        rig.produce(rig.plays(2 * NUM_PARTITIONS, item="slow:3:"))
        with Load(rig, Rig.plays, RATE):
            until(lambda: counted(zombie, "buffered_plays") > RATE / 10, 30, zombie)
            proxy.cut()
            time.sleep(cut_s)
            until(lambda: "were not acknowledged" in zombie.log(), 30, zombie)
            proxy.heal()
            healed_at_s = time.monotonic()
            until(lambda: holds_partitions(zombie) and serving([zombie, successor], NUM_PARTITIONS), 90, zombie)
            back_s = time.monotonic() - healed_at_s
            group.catches_up(rig, rate=RATE)
        group.catches_up(rig)
    _report(fault_row, f"network cut of {cut_s:.0f} s, plays given up meanwhile", rig, rejoined_s=back_s)
    assert [zombie.terminate(), successor.terminate()] == [0, 0], zombie.log()[-3000:]


def _two_workers(
    rig: Rig, proxy: TcpProxy, module: str = "tests.worlds.counting", **environment: str
) -> tuple[Worker, Worker]:
    """One that reaches the broker through the proxy only, and one that does not need it; caught up, each with partitions.

    ``module`` and ``environment`` are the first one's.
    """
    through = rig.start_worker(module=module, INTENTREC_BROKER=f"{HOST}:{proxy.port}", **environment)
    direct = rig.start_worker()
    until(lambda: serving([through, direct], NUM_PARTITIONS), 90, through)
    until(lambda: holds_partitions(through) and holds_partitions(direct), 60, through)
    rig.produce(rig.plays(400))
    with GroupView(rig.settings) as group:
        group.catches_up(rig)
    return through, direct


def _report(fault_row: FaultRow, fault: str, rig: Rig, **figures: float | str) -> None:
    running = [worker for worker in rig.workers if worker.process.poll() is None]
    worker_mb = max(resident_mb(worker, "VmHWM") for worker in running)
    fault_row(fault, judge(rig.settings, rig.layout), plays_s=RATE, **figures, worker_mb=worker_mb)
    assert worker_mb < MAX_WORKER_MB


def _configure(rig: Rig, topic: str, config: dict[str, str]) -> None:
    entries = [ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": rig.settings.broker, "log_level": 0})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)


def _changelog(rig: Rig) -> dict[int, set[int]]:
    """The offsets at which each partition of the changelog has a record."""
    found: dict[int, set[int]] = {partition: set() for partition in range(NUM_PARTITIONS)}
    for record in read_all(rig.settings, rig.settings.changelog_topic):
        found[record.partition].add(record.offset)
    return found


def _is_compacted(rig: Rig, before: dict[int, set[int]]) -> bool:
    """Whether every partition has lost some of the records it had."""
    now = _changelog(rig)
    return all(offsets - now[partition] for partition, offsets in before.items())
