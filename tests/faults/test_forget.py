"""Members forgotten while workers are killed: their bytes leave the compacted changelog and the event log, all else is exact."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from intentrec_core.history.history import hash64
from stream.kafka.send_erasure import send_forget
from stream.local_kafka.broker import Broker
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.app import TrainerProcess
from stream.trainer.event_log import EventLog
from stream.wire.routing import home_partition
from tests.faults.load import GroupView, Load, serving
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig
from tests.rigs.serving_rig import until
from tests.rigs.verdict import judge, read_all

GONE, BACK = "member-who-goes", "member-who-comes-back"
NUM_OWN = 40
#: Segments are rolled and cleaned as soon as the cleaner looks, and tombstones and old files go at once.
COMPACTED_AT_ONCE = {
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "0",
    "file.delete.delay.ms": "0",
}
NOTHING_TO_TRAIN = (sys.executable, "-c", """print('{"outcome":"skipped","detail":"a test"}')""")


def own_plays(rig: Rig, user: str, first: int, num: int) -> Iterator[dict[str, Any]]:
    """Plays of items and under event ids that no other member has."""
    for number in range(first, first + num):
        yield {
            "event_id": f"{user}-event-{number}", "user_id": user, "item_id": f"{user}-item-{number}",
            "ts": rig.began_ms + 1000 * number,
        }  # fmt: skip


def traces(user: str, numbers: range) -> list[bytes]:
    """What a play leaves behind: the hashes of its item and event."""
    texts = [f"{user}-{kind}-{number}" for number in numbers for kind in ("item", "event")]
    return [hash64(text).to_bytes(8, "little") for text in texts]


def changelog_bytes(broker: Broker, settings: Settings, user: str) -> bytes:
    """The files in which the broker keeps the member's partition of the changelog."""
    name = f"{settings.changelog_topic}-{home_partition(user.encode(), NUM_PARTITIONS)}"
    (folder,) = (path for path in broker.log_path.parent.rglob(name) if path.is_dir())
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.log")) if path.exists())


def logged(settings: Settings) -> dict[str, set[str]]:
    """Event ids by member, as the files of the event log have them, superseded ones included; bytes are searched as well."""
    found: dict[str, set[str]] = {}
    for path in Path(settings.event_log_dir).iterdir():
        assert path.suffix != ".forget", "carried out, so it is gone"
        if path.suffix == ".parquet":
            for row in pq.read_table(path, columns=["user_id", "event_id"]).to_pylist():
                found.setdefault(row["user_id"], set()).add(row["event_id"])
            if GONE not in found:
                assert GONE.encode() not in path.read_bytes(), "in the statistics of a file"
    return found


def train(settings: Settings) -> None:
    """A trainer, from its start to its first run behind the last play of the topic; its runs learn nothing."""
    plays = [record for record in read_all(settings, settings.plays_topic) if record.value is not None]
    ends = {record.partition: record.offset + 1 for record in plays}
    log = EventLog(settings.event_log_dir, settings.plays_topic)

    async def run() -> None:
        process = TrainerProcess(settings, Metrics(), retrain_command=NOTHING_TO_TRAIN)
        task = asyncio.create_task(process.run())
        await _until(lambda: all(log.next_offsets().get(p, 0) >= end for p, end in ends.items()))
        process.last_result = None
        await _until(lambda: process.last_result is not None)
        process.last_result = None  # that one may have begun before
        await _until(lambda: process.last_result is not None)
        process.stop()
        await task

    asyncio.run(run())


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not holds():  # noqa: ASYNC110  what is waited for is on the disk
            await asyncio.sleep(0.1)


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_forgotten_under_load_while_workers_are_killed(
    kafka_broker: Broker, make_rig: RigMaker, tmp_path: Path, fault_row: FaultRow, full_faults: bool
) -> None:
    rig = make_rig(kafka_broker, event_log_dir=tmp_path / "log", cache_dir=tmp_path / "cache", retrain_interval_s=1,
                   retrain_min_plays=100, event_log_flush_s=0.2, metrics_port=0)  # fmt: skip
    settings, old = rig.settings, range(NUM_OWN)
    configure_to_compact_at_once(settings.broker, settings.changelog_topic)
    workers = [rig.start_worker(), rig.start_worker()]
    num_requests = 0
    with GroupView(settings) as group:
        for user in (GONE, BACK):
            rig.produce(own_plays(rig, user, 0, NUM_OWN))
        rig.produce(rig.plays(400))
        group.catches_up(rig)
        for user in (GONE, BACK):
            held = changelog_bytes(kafka_broker, settings, user)
            assert all(trace in held for trace in [user.encode(), *traces(user, old)]), "it is there before"
        train(settings)
        assert logged(settings)[GONE] == {f"{GONE}-event-{number}" for number in old}

        began_s = time.monotonic()
        with Load(rig, Rig.plays, 150.0):
            asyncio.run(send_forget(settings, GONE))
            for number in range(10 if full_faults else 1):
                rig.produce(own_plays(rig, BACK, NUM_OWN + 3 * number, 3))
                asyncio.run(send_forget(settings, BACK))
                num_requests += 1
                workers[number % 2].send(signal.SIGKILL)
                workers[number % 2] = rig.start_worker()
                rig.produce(own_plays(rig, BACK, NUM_OWN + 3 * number + 1, 2))
                group.catches_up(rig, rate=150.0)
            deadline_s = time.monotonic() + 120
            while left := _left(kafka_broker, settings, old):
                assert time.monotonic() < deadline_s, left
                time.sleep(0.5)
            gone_s = time.monotonic() - began_s
        group.catches_up(rig)
    until(lambda: serving(workers, NUM_PARTITIONS), 60, workers[0])
    assert [worker.terminate() for worker in workers] == [0, 0]
    verdict = judge(settings, rig.layout)
    train(settings)
    kept = logged(settings)
    fault_row(
        "members forgotten, workers killed",
        verdict,
        requests=1 + num_requests,
        kills=num_requests,
        gone_from_changelog_s=gone_s,
    )
    assert GONE not in kept
    last = NUM_OWN + 3 * (num_requests - 1)
    assert kept[BACK] == {f"{BACK}-event-{number}" for number in (last + 1, last + 2)}
    assert rig.state()[BACK].count == 2
    assert GONE not in rig.state()


def _left(broker: Broker, settings: Settings, old: range) -> list[bytes]:
    """What is still found in the changelog's files of plays from before the requests, and of the member who stays away."""
    wanted = {GONE: [GONE.encode(), *traces(GONE, old)], BACK: traces(BACK, old)}
    held = {user: changelog_bytes(broker, settings, user) for user in wanted}
    return [trace for user, searched in wanted.items() for trace in searched if trace in held[user]]


def configure_to_compact_at_once(broker: str, topic: str) -> None:
    """Has the broker compact a topic whenever it looks, as :data:`COMPACTED_AT_ONCE` says."""
    entries = [ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in COMPACTED_AT_ONCE.items()]
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    for done in admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
    ).values():
        done.result(30)


KILLED = """
import os, signal, sys
from pathlib import Path
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay
from stream.trainer.event_log_erasure import PendingErasure
from intentrec_core.plays.table import PlayRow

root, die_at, calls = Path(sys.argv[1]), int(sys.argv[2]), 0

def mortal(call):
    def step(*args, **kwargs):
        global calls
        for when in "before", "after":
            calls += 1
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if when == "before":
                result = call(*args, **kwargs)
        return result
    return step

os.fsync, Path.replace, Path.unlink = mortal(os.fsync), mortal(Path.replace), mortal(Path.unlink)
writer = EventLogWriter(root, "plays", merge_at=3)
while (start := writer.next_offset(0)) < 60:
    if start == 50:
        writer.append(0, [], 51)
        writer.erase(PendingErasure(0, 50, "ann"))
        start = 51
    offsets = range(start, 50 if start < 50 else 60)[:25]
    plays = [LoggedPlay(o, o, PlayRow(f"e{o}", ("ann", "ben")[o % 2], "i", o)) for o in offsets]
    writer.append(0, plays, offsets.stop)
    writer.flush()
writer.purge()
print("done", calls)
"""


@pytest.mark.timeout(300)
def test_killed_at_every_step_of_carrying_out_a_request(tmp_path: Path, full_faults: bool) -> None:
    def run(root: Path, die_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(root), str(die_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    num_steps = int(run(tmp_path / "whole", 0).stdout.split()[-1])
    expected = [f"e{o}" for o in range(60) if o != 50 and (o % 2 or o > 50)]
    for die_at in range(1, num_steps + 1, 1 if full_faults else 5):
        root = tmp_path / f"at-{die_at}"
        assert run(root, die_at).returncode == -signal.SIGKILL, die_at
        finished = run(root, 0)
        assert finished.returncode == 0, finished.stderr
        assert EventLog(root, "plays").plays().column("event_id").to_pylist() == expected, die_at
        assert {path.suffix for path in root.iterdir()} <= {".parquet", ""}
