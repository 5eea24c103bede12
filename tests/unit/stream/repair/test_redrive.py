"""Redrive without a broker: which dead letters are sent again, to which partition, and with which headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from intentrec_core.errors import RejectReason
from stream.repair import redrive
from stream.repair.redrive import Redrive, Selection, SkipReason
from stream.settings import Settings
from stream.wire.dead_letter import dead_letter
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from stream.wire.routing import home_partition


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
    """The dead-letter topic, with a producer and a reader for it, in memory."""

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


def test_original_bytes_key_and_headers_go_to_the_partition_of_the_key(box: Box) -> None:
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


def test_with_any_partitioner_a_play_goes_back_to_its_own_partition(box: Box) -> None:
    box.settings = Settings(plays_partitioner="any")
    box.add(Record(b"{bad"))
    run(box)
    assert box.sent[0]["partition"] == 3


def test_dead_letters_that_cannot_or_need_not_be_sent_are_skipped_and_counted(box: Box) -> None:
    box.add(Record(b"x" * 1_000_001), RejectReason.OVERSIZED)
    box.add(Record(b"{", key=b"k" * 100_000), RejectReason.KEY_MISMATCH)
    box.add(Record(b"{}"), RejectReason.INFERENCE_FAILED)
    box.add(Record(b"{}"), RejectReason.OUTPUT_TOO_LARGE)
    box.add(Record(b"{", topic="other"))
    box.dead_letters.append(Record(b"stray", topic="plays.dlq", partition=0, offset=5))
    done = run(box)
    assert done.skipped == {
        SkipReason.CUT: 2, SkipReason.FOLDED_IN: 2, SkipReason.OTHER_TOPIC: 1, SkipReason.NOT_A_DEAD_LETTER: 1
    }  # fmt: skip
    assert not box.sent


def test_a_play_that_keeps_failing_is_sent_again_only_so_often(box: Box) -> None:
    """Each run sends only the newest dead letter of the play, so that dead letters do not double."""
    box.add(Record(b"{bad"))
    for times in range(1, 6):
        done = run(box, max_redrives=3)
        assert done.sent.total() == (times <= 3)
        if times <= 3:
            assert dict(box.sent[-1]["headers"])["intentrec-redrives"] == str(times).encode()
            box.add(Record(box.sent[-1]["value"], headers=box.sent[-1]["headers"]))
    assert done.skipped == {SkipReason.FAILED_AGAIN: 3, SkipReason.TOO_OFTEN: 1}
    assert len(box.dead_letters) == 4


def test_a_count_that_a_producer_made_up_is_ignored(box: Box) -> None:
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
