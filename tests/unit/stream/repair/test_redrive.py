"""Which dead_letters are sent again, where to, and with what: without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from intentrec_core.errors import RejectReason
from stream.repair import redrive
from stream.repair.redrive import Left, Redrive, Selection
from stream.settings import Settings
from stream.wire.dead_letter import dead_letter
from stream.wire.erasure_record import CONTROL_HEADER, FORGET, home_partition


@dataclass
class Record:
    """A record of either topic."""

    value: bytes | None
    key: bytes | None = b"u1"
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = "plays"
    partition: int = 3
    offset: int = 42
    timestamp: int = 1


@dataclass
class Box:
    """The dead-dead_letter topic, a producer that fills it again with what it is given, and the reader of both."""

    settings: Settings = field(default_factory=Settings)
    dead_letters: list[Record] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: Record, reason: RejectReason = RejectReason.MALFORMED) -> None:
        kept = dead_letter(record, reason)
        self.dead_letters.append(Record(kept.value, kept.key, kept.headers, "plays.dlq", 0, len(self.dead_letters)))

    async def __aenter__(self) -> Box:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def num_partitions(self, topic: str) -> int:
        return 8 if topic == "plays" else 1

    async def read(self, topic: str, partition: int, first: int = 0) -> AsyncIterator[list[Record]]:
        yield self.dead_letters[first:]

    async def send(self, topic: str, value: bytes | None, **options: Any) -> asyncio.Future[None]:
        self.sent.append({"value": value, **options})
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Box:
    made = Box()
    monkeypatch.setattr(redrive, "TopicReader", lambda settings: made)
    return made


def run(box: Box, selection: Selection | None = None, **options: Any) -> Redrive:
    done = Redrive(box.settings, selection or Selection(), **options)
    asyncio.run(done.run(box))
    return done


def test_original_bytes_key_and_headers_go_where_the_key_says(box: Box) -> None:
    box.add(Record(b"{bad", headers=[("trace", b"t1")]))
    box.add(Record(None, b"", ((CONTROL_HEADER, FORGET),)), RejectReason.WRONG_PARTITION)
    box.add(Record(b"[]", key=None), RejectReason.INVALID_FIELD)
    done = run(box)
    assert done.sent.total() == 3
    assert [(s["value"], s["key"], s["partition"]) for s in box.sent] == [
        (b"{bad", b"u1", home_partition(b"u1", 8)), (None, b"", home_partition(b"", 8)), (b"[]", None, 3),
    ]  # fmt: skip
    assert dict(box.sent[0]["headers"]) == {
        "trace": b"t1", "intentrec-redrives": b"1", "intentrec-redrive-of": b"0:0"
    }  # fmt: skip
    assert (CONTROL_HEADER, FORGET) in box.sent[1]["headers"]


def test_where_producers_partition_by_anything_a_play_goes_back_where_it_was(box: Box) -> None:
    box.settings = Settings(plays_partitioner="any")
    box.add(Record(b"{bad"))
    run(box)
    assert box.sent[0]["partition"] == 3


def test_letters_that_cannot_or_need_not_be_sent_are_left_and_counted(box: Box) -> None:
    box.add(Record(b"x" * 1_000_001), RejectReason.OVERSIZED)
    box.add(Record(b"{", key=b"k" * 100_000), RejectReason.KEY_MISMATCH)
    box.add(Record(b"{}"), RejectReason.INFERENCE_FAILED)
    box.add(Record(b"{", topic="other"))
    box.dead_letters.append(Record(b"stray", topic="plays.dlq", partition=0, offset=4))
    done = run(box)
    assert done.left == {Left.CUT: 2, Left.FOLDED_IN: 1, Left.OTHER_TOPIC: 1, Left.NO_LETTER: 1}
    assert not box.sent


def test_a_play_that_fails_again_and_again_is_sent_so_often_and_no_more(box: Box) -> None:
    """Each run sends the newest dead_letter of the play only, so that dead_letters do not double."""
    box.add(Record(b"{bad"))
    for times in range(1, 6):
        done = run(box, max_redrives=3)
        assert done.sent.total() == (times <= 3)
        if times <= 3:
            assert dict(box.sent[-1]["headers"])["intentrec-redrives"] == str(times).encode()
            box.add(Record(box.sent[-1]["value"], headers=box.sent[-1]["headers"]))
    assert done.left == {Left.FAILED_AGAIN: 3, Left.TOO_OFTEN: 1}
    assert len(box.dead_letters) == 4


def test_a_producers_own_count_is_no_way_out(box: Box) -> None:
    box.add(Record(b"{", headers=[("intentrec-redrives", b"\xff-7")]))
    run(box)
    assert dict(box.sent[0]["headers"])["intentrec-redrives"] == b"1"


def test_selection_limit_and_dry_run(box: Box) -> None:
    for number in range(10):
        box.add(Record(b"%d" % number), RejectReason.MALFORMED if number % 2 else RejectReason.FUTURE)
    assert run(box, Selection(reasons=frozenset({"future"})), dry_run=True).sent == {"future": 5}
    assert run(box, Selection(first={0: 3}, last={0: 6}), dry_run=True).sent.total() == 4
    assert run(box, Selection(first={1: 0}), dry_run=True).sent.total() == 0
    assert not box.sent
    done = run(box, limit=4)
    assert [s["value"] for s in box.sent] == [b"0", b"1", b"2", b"3"]
    assert done.next_offsets == {0: 4}
