"""Dead letters keep enough to be sent again, and can never be too large themselves."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from intentrec_core.errors import RejectReason
from intentrec_core.history.history import History
from stream.pipeline.folding import Folder
from stream.wire.dead_letter import KEPT_OF_OVERSIZED_BYTES, DeadLetter, dead_letter, late_play
from stream.wire.records import OutputKind
from stream.wire.sizes import MIN_DEAD_LETTER_BYTES, TopicLimits
from tests.worlds.bundle_world import PlayLog
from tests.worlds.tiny_world import TinyWorld


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = b"u1"
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    topic: str = "plays"
    partition: int = 3
    offset: int = 42


def test_keeps_the_original_bytes_and_says_why_and_where() -> None:
    letter = dead_letter(Record(b"{bad", headers=[("trace", b"t1")]), RejectReason.MALFORMED, "no JSON")
    assert (letter.key, letter.value) == (b"u1", b"{bad")
    assert dict(letter.headers) == {
        "trace": b"t1",
        "intentrec-error": b"malformed",
        "intentrec-detail": b"no JSON",
        "intentrec-topic": b"plays",
        "intentrec-partition": b"3",
        "intentrec-offset": b"42",
    }


def test_of_an_oversized_value_keeps_the_beginning_length_and_hash() -> None:
    value = bytes(range(256)) * 8000
    letter = dead_letter(Record(value), RejectReason.OVERSIZED)
    headers = dict(letter.headers)
    assert letter.value == value[:KEPT_OF_OVERSIZED_BYTES]
    assert headers["intentrec-length"] == str(len(value)).encode()
    assert headers["intentrec-sha256"] == hashlib.sha256(value).hexdigest().encode()


def test_up_to_one_megabyte_is_kept_whole() -> None:
    value = b"x" * 1_000_000
    letter = dead_letter(Record(value), RejectReason.MALFORMED)
    assert letter.value == value
    assert "intentrec-length" not in dict(letter.headers)


def test_a_missing_value_is_told_from_an_empty_one() -> None:
    assert ("intentrec-null-value", b"true") in dead_letter(Record(None), RejectReason.EMPTY).headers
    assert ("intentrec-null-value", b"true") not in dead_letter(Record(b""), RejectReason.EMPTY).headers


def test_producers_can_neither_forge_nor_flood_the_headers() -> None:
    headers = [("intentrec-offset", b"0"), ("big", b"x" * 900_000), ("small", b"y")]
    letter = dead_letter(Record(b"{", headers=headers), RejectReason.MALFORMED)
    assert [content for name, content in letter.headers if name == "intentrec-offset"] == [b"42"]
    assert sum(len(name) + len(content) for name, content in letter.headers) < 70_000


def test_an_oversized_key_is_cut() -> None:
    letter = dead_letter(Record(b"{", key=b"k" * 500_000), RejectReason.KEY_MISMATCH)
    assert letter.key == b"k" * KEPT_OF_OVERSIZED_BYTES
    assert ("intentrec-key-length", b"500000") in letter.headers


def record_bytes(letter: DeadLetter) -> int:
    """Bytes of the record as Kafka's batch has it."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 10**9)
    builder.append(0, 1_772_396_100_000, letter.key, letter.value, [("intentrec-id", b"x" * 305), *letter.headers])
    return len(builder.build())


@pytest.mark.parametrize(
    "headers",
    [[("", b"")] * 1_000_000, [("", None)] * 1_000_000, [("é" * 32_000, b"")] * 40, [("a", b"\xff" * 60)] * 20_000],
    ids=["empty headers", "null headers", "names of several bytes a character", "small headers"],
)
def test_a_dead_letter_fits_into_its_topic_whatever_the_producers_headers_are(headers: Any) -> None:
    largest = Record(b"x" * 1_000_000, key=b"k" * 500_000, headers=headers)
    for letter in (dead_letter(largest, RejectReason.MALFORMED, "d" * 900), late_play(largest)):
        assert record_bytes(letter) <= 1_200_000


@pytest.mark.parametrize("limit", [MIN_DEAD_LETTER_BYTES, 300_000, 1_048_588])
def test_a_topic_with_a_smaller_limit_gets_the_beginning_of_a_large_play(limit: int) -> None:
    limits = TopicLimits(dead_letter=limit, late=limit)
    largest = Record(b"x" * 1_000_000, key=b"k" * 500_000, headers=[("h", b"y" * 60_000)])
    for letter in (
        dead_letter(largest, RejectReason.MALFORMED, "d" * 900, limits.of(OutputKind.DEAD_LETTER)),
        late_play(largest, limits.of(OutputKind.LATE)),
    ):
        assert letter.value == b"x" * KEPT_OF_OVERSIZED_BYTES
        assert ("intentrec-length", b"1000000") in letter.headers
        assert record_bytes(letter) <= limit
    small = Record(b"x" * 100_000)
    assert dead_letter(small, RejectReason.MALFORMED, "", limits.of(OutputKind.DEAD_LETTER)).value == small.value


def test_what_is_set_aside_as_late_cannot_be_flooded_either(world: TinyWorld) -> None:
    log, histories = PlayLog(), dict[str, History]()
    for number in range(3 * world.window):
        log.play("ann", number, 100.0 * number)
    headers = (("intentrec-offset", b"0"), ("none", None), ("big", b"x" * 3_000_000), ("small", b"y"))
    late = dataclasses.replace(log.play("ann", 1, 0.0), headers=headers)
    work = Folder(world.layout, 1).fold(0, histories, [*log.records[:-1], late])
    output = work.outputs[-1]
    assert output.kind is OutputKind.LATE
    assert output.value == late.value
    own = dict(output.headers)
    assert own["intentrec-offset"] == b"%d" % late.offset
    assert "big" not in own
    assert own["none"] == b""
