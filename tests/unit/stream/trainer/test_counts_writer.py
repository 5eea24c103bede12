"""Tables of counts on a topic whose broker fails: what a reader has is a table of some moment, and in the end the newest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine import item_counts
from intentrec_core.errors import Fenced
from intentrec_core.plays.table import PlayRow
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer import counts_writer
from stream.trainer.counts_writer import CountsWriter
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_writer import LoggedPlay
from stream.trainer.play_counter import PlayCounter
from stream.wire.item_counts_record import CountsAssembly, PackedCounts

START_MS = 1_772_323_200_000


class Topic:
    """A topic, and a producer to it that fails after so many records; the record that it fails at may be written all the same."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self.left = 10**9
        self.fails_late = False

    async def send(self, topic: str, value: bytes, *, key: bytes, partition: int) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left -= 1
        if self.left > 0 or self.fails_late:
            self.records.append((key, value))
        if self.left <= 0:
            done.set_exception(KafkaConnectionError())
        else:
            done.set_result(None)
        return done

    async def send_and_wait(self, topic: str, value: bytes, *, key: bytes, partition: int) -> None:
        await (await self.send(topic, value, key=key, partition=partition))

    def newest(self) -> PackedCounts | None:
        assembly = CountsAssembly()
        for key, value in self.records:
            assembly.take(key, value)
        return assembly.newest


class Plays:
    """A counter, and plays for it."""

    def __init__(self, folder: Path, newest: PackedCounts | None = None) -> None:
        self.counter, self.num = PlayCounter(), 0
        self.counter.begin(newest, EventLog(folder, "plays"))

    def play(self, item: int) -> None:
        row = PlayRow(f"e{self.num}", "u", f"item-{item}", START_MS + 1000 * self.num, None)
        self.counter.take(0, [LoggedPlay(self.num, 0, row)], self.num + 1)
        self.num += 1

    def blocks(self) -> list[bytes]:
        return [self.counter.fold.block(number) for number in range(self.counter.fold.num_blocks)]


def writer_of(plays: Plays, lead: list[bool]) -> CountsWriter:
    async def confirm(token: str) -> None:
        if not lead[0]:
            raise Fenced("another trainer leads")

    return CountsWriter(Settings.load(), Metrics(), plays.counter, None, 0, confirm)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 6) | st.just(10**9), st.booleans()),
        max_size=8,
    )
)
def test_whatever_fails_a_reader_has_a_table_of_some_moment_and_then_the_newest(
    steps: list[tuple[list[int], int, bool]],
) -> None:
    async def test() -> None:
        topic, plays = Topic(), Plays(Path("/nowhere"))
        writer, moments = writer_of(plays, [True]), list[tuple[dict[str, int], list[bytes]]]()
        for items, topic.left, topic.fails_late in [*steps, ([3], 10**9, False)]:
            for item in items:
                plays.play(item)
            moments.append(({"0": plays.num}, plays.blocks()))
            try:
                await writer._write(topic)  # type: ignore[arg-type]
            except KafkaConnectionError:
                assert topic.left <= 0
            newest = topic.newest()
            if newest is not None:
                assert (newest.head.offsets, list(newest.blocks)) in moments
        assert newest is not None
        assert (newest.head.offsets, list(newest.blocks)) == moments[-1]

    before, item_counts.BLOCK_ITEMS = item_counts.BLOCK_ITEMS, 2
    try:
        asyncio.run(test())
    finally:
        item_counts.BLOCK_ITEMS = before


def test_only_what_changed_is_written_and_a_head_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_counts, "BLOCK_ITEMS", 2)
    now_s = [1000.0]
    monkeypatch.setattr(counts_writer.time, "monotonic", lambda: now_s[0])

    async def test() -> None:
        topic, plays = Topic(), Plays(tmp_path)
        writer = writer_of(plays, [True])

        async def written() -> list[bytes]:
            topic.records.clear()
            await writer._write(topic)  # type: ignore[arg-type]
            return [key for key, _ in topic.records]

        assert await written() == []
        for item in range(5):
            plays.play(item)
        assert await written() == [b"block-0", b"block-1", b"block-2", b"head"]
        assert await written() == []
        plays.play(4)
        assert await written() == [b"block-2", b"head"]
        now_s[0] += 61
        assert await written() == [b"head"]
        now_s[0] += 601
        assert await written() == [b"block-0", b"block-1", b"block-2", b"head"]

    asyncio.run(test())


def test_a_trainer_that_lost_the_lead_writes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        topic, plays, lead = Topic(), Plays(tmp_path), [True]
        writer = writer_of(plays, lead)
        plays.play(1)
        await writer._write(topic)  # type: ignore[arg-type]
        lead[0] = False
        plays.play(2)
        num = len(topic.records)
        with pytest.raises(Fenced):
            await writer._write(topic)  # type: ignore[arg-type]
        assert len(topic.records) == num

    asyncio.run(test())


def test_a_reader_begins_anew_where_the_topic_was_made_anew(tmp_path: Path) -> None:
    """Its numbers may be lower: offsets that begin again say so."""

    class Record:
        def __init__(self, offset: int, key: bytes, value: bytes) -> None:
            self.offset, self.key, self.value = offset, key, value

    async def test() -> None:
        topic, plays = Topic(), Plays(tmp_path)
        plays.play(1)
        reader, writer = ItemCountsReader(Settings.load()), writer_of(plays, [True])
        for _ in range(3):
            await writer._write(topic)  # type: ignore[arg-type]
            plays.play(2)
        taken: list[Any] = [Record(offset, *record) for offset, record in enumerate(topic.records)]
        assert reader._take(taken)
        assert reader.last_sequence == 3
        topic.records.clear()
        await writer_of(Plays(tmp_path), [True])._write(topic)  # type: ignore[arg-type]
        other = Plays(tmp_path)
        other.play(7)
        await writer_of(other, [True])._write(topic)  # type: ignore[arg-type]
        assert reader._take([Record(offset, *record) for offset, record in enumerate(topic.records)])  # type: ignore[misc]
        assert reader.last_sequence == 1

    asyncio.run(test())
