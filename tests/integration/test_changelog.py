"""Fence, checkpoint and restore against a real Apache Kafka, on which all guarantees rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from intentrec_core.errors import Fenced, RecoveryTimeout, StateError
from intentrec_core.history.changelog_codec import Marker, encode_changes
from intentrec_core.history.history import History
from stream.delivery.changelog import Checkpoint, TransactionalWriter
from stream.delivery.partition import PartitionTask, TaskDependencies
from stream.delivery.restore import read_changelog
from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import NUM_PARTITIONS, Rig

pytestmark = [pytest.mark.timeout(120), pytest.mark.kafka]


@pytest.fixture
def rig(kafka_broker: Broker, make_rig: RigMaker) -> Rig:
    return make_rig(kafka_broker)


def _writer(rig: Rig, make_producer: Callable[..., AIOKafkaProducer] = AIOKafkaProducer) -> TransactionalWriter:
    def marker(next_offset: int) -> Marker:
        return Marker(num_partitions=NUM_PARTITIONS, next_offset=next_offset, fingerprint=rig.layout.domain.fingerprint)

    return TransactionalWriter(rig.settings, 0, marker, None, make_producer=make_producer)


def _checkpoint(rig: Rig, history: History, offset: int, *, user: str = "u1", padding: int = 0) -> Checkpoint:
    """Folds one play and makes the checkpoint after it."""
    play = rig.layout.pack(item_id="i", event_id=f"e{offset}", ts_ms=offset, duration_s=None, attributes={})
    fold = history.apply(rig.layout, play, offset)
    changes: dict[bytes, bytes | None] = dict(
        encode_changes(rig.layout, user, history, first_changed=fold.position, anchor_moved=fold.evicted > 0)
    )
    changes |= {b"pad%d\x00E\x00\x00" % number: None for number in range(padding)}
    return Checkpoint(offset + 1, changes)


def _run(scenario: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(scenario())


def test_a_zombies_checkpoint_is_refused_and_never_seen(rig: Rig) -> None:
    async def scenario() -> None:
        zombie, successor = _writer(rig), _writer(rig)
        history = History()
        await zombie.open()
        await zombie.commit(_checkpoint(rig, history, 0))
        stale = _checkpoint(rig, history, 1)
        await successor.open()
        restored = await read_changelog(rig.settings, 0, rig.layout)
        with pytest.raises(Fenced):
            await zombie.commit(stale)
        assert restored.histories["u1"].count == 1
        assert (await read_changelog(rig.settings, 0, rig.layout)).histories == restored.histories
        await successor.commit(_checkpoint(rig, restored.histories["u1"], 1))
        assert (await read_changelog(rig.settings, 0, rig.layout)).histories["u1"].count == 2
        await zombie.close()
        await successor.close()

    _run(scenario)


def test_what_a_dead_owner_left_open_is_aborted_by_the_next_owners_start(rig: Rig) -> None:
    async def scenario() -> None:
        producers: list[AIOKafkaProducer] = []

        def make_producer(**options: Any) -> AIOKafkaProducer:
            producers.append(AIOKafkaProducer(**options))
            return producers[-1]

        dead, successor = _writer(rig, make_producer), _writer(rig)
        await dead.open()
        await dead.commit(_checkpoint(rig, History(), 0))
        (producer,) = producers
        await producer.begin_transaction()
        await producer.send_and_wait(rig.settings.changelog_topic, b"half", b"u2\x00E\x00\x00", partition=0)
        await successor.open()
        async with asyncio.timeout(5):  # below the transaction's own timeout of 10 s
            restored = await read_changelog(rig.settings, 0, rig.layout)
        assert set(restored.histories) == {"u1"}
        assert restored.marker is not None
        assert restored.marker.next_offset == 1
        await dead.close()
        await successor.close()

    _run(scenario)


def test_every_checkpoint_is_restored_although_the_log_ends_with_a_control_record(rig: Rig) -> None:
    async def scenario() -> None:
        writer, history = _writer(rig), History()
        await writer.open()
        for offset in range(150):
            await writer.commit(_checkpoint(rig, history, offset))
        restored = await read_changelog(rig.settings, 0, rig.layout)
        assert restored.histories == {"u1": history}
        assert restored.marker is not None
        assert restored.marker.next_offset == 150
        await writer.close()

    _run(scenario)


def test_a_checkpoint_larger_than_a_batch_is_whole(rig: Rig) -> None:
    async def scenario() -> None:
        writer, history = _writer(rig), History()
        await writer.open()
        await writer.commit(_checkpoint(rig, history, 0, padding=60_000))
        restored = await read_changelog(rig.settings, 0, rig.layout)
        assert restored.num_records == 60_002
        assert restored.histories == {"u1": history}
        await writer.close()

    _run(scenario)


def test_an_empty_changelog_restores_to_nothing(rig: Rig) -> None:
    restored = _run(lambda: read_changelog(rig.settings, 0, rig.layout))
    assert (restored.histories, restored.marker) == ({}, None)


def test_a_restore_that_hangs_ends_by_its_deadline(rig: Rig) -> None:
    async def scenario() -> None:
        async def never(partition: int) -> Any:
            await asyncio.sleep(3600)

        async def nothing(*_: Any) -> None:
            pass

        parts = TaskDependencies(
            source=None,
            writer=lambda partition, marker: _writer(rig),
            marker=lambda num, offset: Marker(num_partitions=num, next_offset=offset, fingerprint="f" * 16),
            restore=never,
            transactional=True,
            fingerprint="f" * 16,
            commit_interval_s=0.1,
            recovery_deadline_s=1.5,
        )
        life = PartitionTask(0, parts, SimpleNamespace(open_state=nothing, close_state=nothing))
        with pytest.raises(RecoveryTimeout, match="raise recovery_deadline_s"):
            await life.open()
        await life.abandon()

    _run(scenario)


def test_a_record_that_is_missing_is_noticed(rig: Rig) -> None:
    async def scenario() -> None:
        writer, history = _writer(rig), History()
        await writer.open()
        for offset in range(20):
            await writer.commit(_checkpoint(rig, history, offset))
        gone = next(iter(_checkpoint(rig, history, 20).changes))[:-2] + b"\x00\x00"
        await writer.commit(Checkpoint(22, {gone: None}))
        with pytest.raises(StateError, match="records are missing"):
            await read_changelog(rig.settings, 0, rig.layout)
        await writer.close()

    _run(scenario)
