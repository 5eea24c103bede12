"""Workers of another changelog schema, rolled in and out one at a time: state goes on, or nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

from intentrec_core.history.changelog_codec import MARKER_KEY
from stream.local_kafka.broker import Broker
from tests.faults import next_version
from tests.faults.load import GroupView, holds_partitions
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import Rig, Worker
from tests.rigs.serving_rig import until
from tests.rigs.verdict import judge, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def _next(rig: Rig) -> Worker:
    return rig.start_worker(module="tests.faults.next_version")


def _changelog(rig: Rig, *, markers: bool = False) -> dict[tuple[int, int], int]:
    """The schema of every committed record, of markers only where asked for, by partition and offset."""
    records = read_all(rig.settings, rig.settings.changelog_topic, "read_committed")
    return {(r.partition, r.offset): r.value[0] for r in records if (markers or r.key != MARKER_KEY) and r.value}


def test_a_worker_of_the_next_schema_rolled_in_and_out(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(kafka_broker)
    with GroupView(rig.settings) as group:
        ours = rig.start_worker()
        rig.produce(rig.plays(400))
        group.catches_up(rig)

        # Rolled in, beside ours: it reads what ours wrote, goes on with it, and ours is stopped.
        first = _next(rig)
        until(lambda: holds_partitions(first), 60, first)
        rig.produce(rig.plays(400))
        group.catches_up(rig)
        assert ours.terminate() == 0
        rig.produce(rig.plays(400))
        group.catches_up(rig)
        written = _changelog(rig)
        assert set(written.values()) == {2, 3}

        # Rolled back, beside it: ours meets partitions of the next schema, says so and ends. It has written nothing.
        back = rig.start_worker()
        assert back.wait(90) == 5, back.log()[-3000:]
        refusal = next(line for line in back.log().splitlines() if line.startswith("error: "))
        assert "changelog schema 3, this worker reads 1 to 2: run the version that wrote it" in refusal
        until(lambda: group.lag() == 0, 60, first)
        assert _changelog(rig) == written

        # Alone it refuses just as well; and the next version goes on as if nothing had been.
        assert first.terminate() == 0
        alone = rig.start_worker()
        assert alone.wait(60) == 5
        assert _changelog(rig) == written
        again = _next(rig)
        rig.produce(rig.plays(400))
        group.catches_up(rig)
        assert again.terminate() == 0
    next_version.install(monkeypatch.setattr)
    fault_row("changelog schema + 1 rolled in and out", judge(rig.settings, rig.layout), exit_code_of_ours=5)


def test_workers_that_write_schema_1_give_way_to_others_and_come_back(
    kafka_broker: Broker, make_rig: RigMaker, fault_row: FaultRow
) -> None:
    """Members have 200 more plays in each stage, so that many of them are evicted in each. In each stage one member's oldest and
    newest plays are sent again.
    """
    rig = make_rig(kafka_broker)
    sent: list[dict[str, Any]] = []

    def play(group: GroupView) -> None:
        sent.extend(rig.plays(800, num_users=4))
        rig.produce(sent[-800:])
        rig.produce([*sent[:40], *sent[-40:]])
        group.catches_up(rig)

    with GroupView(rig.settings) as group:
        worker = rig.start_worker(INTENTREC_CHANGELOG_SCHEMA="1")
        play(group)
        assert set(_changelog(rig, markers=True).values()) == {1}
        for schema, found in (("2", {1, 2}), ("1", {1, 2}), ("2", {1, 2})):
            other = rig.start_worker(INTENTREC_CHANGELOG_SCHEMA=schema)
            until(lambda other=other: holds_partitions(other), 60, other)
            assert worker.terminate() == 0
            worker = other
            play(group)
            assert set(_changelog(rig).values()) == found
        assert worker.terminate() == 0
    fault_row("changelog schema 1 written, not written, and written again", judge(rig.settings, rig.layout))
