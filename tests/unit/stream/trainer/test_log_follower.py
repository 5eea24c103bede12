"""A record gives the same bytes through the event log as in the worker; records that the worker rejects are left out.

Also: what counts as a stalled reader.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.history.history import EventLayout
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import plays_table
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer import log_follower
from stream.trainer.log_follower import LogFollower, PlayReader
from stream.wire.codec import DecodedPlay, decode_play
from stream.wire.routing import key_hash
from tests.rigs.worker_bench import until
from tests.worlds.tiny_world import START_MS, TinyWorld

DOMAIN = TinyWorld().domain
LAYOUT = EventLayout(DOMAIN)


@dataclass
class Record:
    """A Kafka record, as far as it is read."""

    value: bytes | None
    offset: int = 5
    timestamp: int = START_MS
    key: bytes | None = None
    topic: str = "plays"
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def record(**changes: Any) -> Record:
    fields = {"event_id": "e", "user_id": "u", "item_id": "item-1", "ts": START_MS} | changes
    return Record(json.dumps(fields).encode())


values = st.one_of(
    st.sampled_from(["tv", "phone", "fridge", "12", "1e3", ""]),
    st.booleans(),
    st.integers(-(2**31), 2**31),
    st.floats(-1e6, 1e6, allow_nan=False, width=32),
)


@given(
    device=values, maturity=values, duration=st.none() | st.floats(0, 1e5, width=32), action=st.none() | st.just("play")
)
def test_the_log_keeps_what_the_history_keeps(
    device: Any, maturity: Any, duration: float | None, action: str | None
) -> None:
    sent = record(context={"device": device, "max_maturity": maturity}, duration_s=duration, action=action)
    logged = PlayReader(DOMAIN, None).read(sent)
    play = decode_play(sent, DOMAIN.earliest_ms, DOMAIN.max_future_ms)
    assert isinstance(play, DecodedPlay)
    try:
        live = LAYOUT.pack(
            item_id=play.item_id,
            event_id=play.event_id,
            ts_ms=play.ts_ms,
            duration_s=play.duration_s,
            attributes=play.attributes,
        )
    except ValueError:
        assert logged is None
        return
    assert logged is not None
    assert (logged.offset, logged.arrival_ms) == (5, START_MS)
    assert pack_members(LAYOUT, plays_table([logged.play])).events.tobytes() == live.data


@pytest.mark.parametrize(
    "refused",
    [
        Record(None),
        Record(b"[1, 2"),
        record(schema_version=2),
        record(item_id=""),
        record(ts=START_MS + 10**7),
        record(context={"max_maturity": "adult"}),
        record(context={"max_maturity": "nan"}),
    ],
)
def test_plays_that_the_worker_rejects_are_not_logged(refused: Record) -> None:
    assert PlayReader(DOMAIN, None).read(refused) is None


def test_a_play_in_the_wrong_partition_is_logged_only_where_any_partitioner_is_allowed() -> None:
    sent = record()
    sent.partition = (key_hash(b"u") + 1) % 4
    assert PlayReader(DOMAIN, 4).read(sent) is None
    assert PlayReader(DOMAIN, None).read(sent) is not None
    sent.partition = key_hash(b"u") % 4
    assert PlayReader(DOMAIN, 4).read(sent) is not None


class StuckConsumer:
    """Gives a play of partition 1 at every poll, a second each, and none of the many of partition 0."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.offset = 0
        self.error: KafkaError | None = None
        self.num_given, self.is_full_after_a_look = 1, False

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("plays", partition) for partition in (0, 1)}

    async def getmany(self, **_: object) -> dict[TopicPartition, list[Record]]:
        await asyncio.sleep(0.001)
        self.now_s += 1
        if self.error is not None:
            return {}
        first, self.offset = self.offset + 1, self.offset + self.num_given
        self.num_given = 1
        return {TopicPartition("plays", 1): [record_at(1, offset) for offset in range(first, self.offset + 1)]}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.error is not None:
            raise self.error
        self.num_given = 2 if self.is_full_after_a_look else 1
        return {partition: 100_000 if partition.partition == 0 else self.offset + 1 for partition in partitions}

    async def stop(self) -> None:
        pass

    async def position(self, partition: TopicPartition) -> int:
        return 0 if partition.partition == 0 else self.offset + 1


def record_at(partition: int, offset: int) -> Record:
    sent = record()
    sent.partition, sent.offset = partition, offset
    return sent


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> StuckConsumer:
    stuck = StuckConsumer()
    monkeypatch.setattr(log_follower, "AIOKafkaConsumer", lambda **_: stuck)
    return stuck


def follow(consumer: StuckConsumer, scenario: Callable[[LogFollower], Awaitable[None]]) -> None:
    """A follower of a scripted consumer, in its time; it looks for its lag all the time."""

    async def run() -> None:
        settings = Settings.load(broker="127.0.0.1:1", plays_topic="plays", progress_deadline_s=0.05)
        writer: Any = SimpleNamespace(append=lambda *_: None, num_buffered=0, root="")
        follower = LogFollower(settings, DOMAIN, writer, Metrics(), lambda _: None, clock=lambda: consumer.now_s)
        running = [asyncio.ensure_future(follower.run()), asyncio.ensure_future(follower.watch_lag())]
        try:
            async with asyncio.timeout(60):
                await scenario(follower)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(run())


def test_a_partition_that_stands_still_is_a_stall_whatever_the_others_give(consumer: StuckConsumer) -> None:
    async def scenario(follower: LogFollower) -> None:
        await until(lambda: consumer.now_s >= 1000)
        assert follower.stalled_s() > 500

    follow(consumer, scenario)


def test_while_polls_leave_plays_behind_a_partition_may_wait_for_its_turn(
    consumer: StuckConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "MAX_POLL_PLAYS", 1)

    async def scenario(follower: LogFollower) -> None:
        await until(lambda: consumer.now_s >= 1000)
        assert follower.stalled_s() < 500

    follow(consumer, scenario)


def test_a_poll_that_was_full_now_and_then_hides_no_partition_that_stands_still(
    consumer: StuckConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_follower, "MAX_POLL_PLAYS", 2)
    consumer.is_full_after_a_look = True

    async def scenario(follower: LogFollower) -> None:
        while follower.stalled_s() < 300:
            await asyncio.sleep(0.01)
            assert consumer.now_s < 10_000

    follow(consumer, scenario)


@pytest.mark.parametrize("told_to_others", [False, True])
def test_a_trainer_hangs_only_if_a_fresh_client_can_read_the_end_offsets(
    consumer: StuckConsumer, monkeypatch: pytest.MonkeyPatch, told_to_others: bool
) -> None:
    consumer.error = KafkaConnectionError()

    async def told(*_: object) -> bool:
        return told_to_others

    monkeypatch.setattr(log_follower, "can_read_end_offsets", told)

    async def scenario(follower: LogFollower) -> None:
        await until(lambda: consumer.now_s >= 1000)
        assert (follower.stalled_s() > 500) is told_to_others
        assert follower.is_cut_off
        consumer.error = None
        await until(lambda: not follower.is_cut_off)

    follow(consumer, scenario)


@pytest.mark.parametrize(("position", "told"), [(5, True), (0, False)], ids=["a log goes on", "a log is new"])
def test_erasure_requests_that_may_have_been_deleted_unread_are_to_be_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, position: int, told: bool
) -> None:
    class Consumer:
        def assign(self, partitions: list[TopicPartition]) -> None:
            pass

        def seek(self, partition: TopicPartition, offset: int) -> None:
            pass

        async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
            return dict.fromkeys(partitions, 10)

    async def counts(settings: Settings, topic: str) -> dict[str, int]:
        return {topic: 1}

    async def scenario() -> None:
        writer: Any = SimpleNamespace(
            next_offset=lambda _: position, skip_to=lambda _, offset: offset - position, root=tmp_path
        )
        await LogFollower(Settings(), DOMAIN, writer, Metrics(), lambda _: None)._resume()

    monkeypatch.setattr(log_follower, "AIOKafkaConsumer", lambda **_: Consumer())
    monkeypatch.setattr(log_follower, "count_partitions", counts)
    with caplog.at_level("INFO"):
        asyncio.run(scenario())
    assert f"{10 - position} plays were deleted before they were logged" in caplog.text
    assert ("erasure requests may have been among them" in caplog.text) is told


@pytest.mark.parametrize("is_full", [False, True])
def test_a_stop_tells_whether_the_plays_that_were_read_are_on_disk(consumer: StuckConsumer, is_full: bool) -> None:
    def flush() -> bool:
        if is_full:
            raise OSError(28, "No space left on device")
        return False

    async def scenario() -> bool:
        writer: Any = SimpleNamespace(flush=flush, num_buffered=0, root="")
        settings = Settings.load(broker="127.0.0.1:1", plays_topic="plays")
        return await LogFollower(settings, DOMAIN, writer, Metrics(), lambda _: None).stop()

    assert asyncio.run(scenario()) is not is_full
