"""A header name that is not UTF-8 changes how that name is shown, and nothing else of the record."""

from __future__ import annotations

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.codec import has_lz4
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from stream.kafka.header_names import KeptRecords, ReadableRecords, ReadRecord, read_any_header_name

UNCOMPRESSED, LZ4 = 0, 3


class Name(str):
    """A name whose bytes are not UTF-8, as a producer in C or Go can send it."""

    def encode(self, *_: str) -> bytes:
        return b"a\xffz"


def batch(first_offset: int, *names: str, compression: int = UNCOMPRESSED) -> bytes:
    """A record for each header name."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(names):
        builder.append(number, timestamp=1, key=b"k", value=b"%d" % number, headers=[(name, b"\xff"), ("plain", b"x")])
    data = builder.build()
    data[:8] = first_offset.to_bytes(8, "big")
    return bytes(data)


def read(data: bytes, fetch_offset: int = 0) -> list[ReadRecord]:
    records = ReadableRecords(
        TopicPartition("plays", 0), KeptRecords(data), [], fetch_offset, None, None, True, READ_COMMITTED
    )
    return list(records)


@pytest.mark.parametrize("compression", [UNCOMPRESSED, LZ4])
def test_records_with_such_a_name_and_around_it_are_all_read(compression: int) -> None:
    assert has_lz4()
    data = batch(5, "a", Name("a"), "\u00e9", Name("b"), compression=compression) + batch(9, Name("a"), "b") + b"cut"
    found = read(data, fetch_offset=6)
    assert [record.offset for record in found] == [6, 7, 8, 9, 10]
    assert [record.value for record in found] == [b"1", b"2", b"3", b"0", b"1"]
    assert [record.headers[0][0] for record in found] == ["a\\xffz", "\u00e9", "a\\xffz", "a\\xffz", "b"]
    assert all(record.headers[0][1] == b"\xff" and record.headers[1] == ("plain", b"x") for record in found)


def test_records_hold_what_aiokafkas_own_hold() -> None:
    data = batch(5, "a", "b")
    source, options = TopicPartition("plays", 3), ([], 0, None, None, True, READ_COMMITTED)
    ours = list(ReadableRecords(source, KeptRecords(data), *options))
    theirs = list(PartitionRecords(source, MemoryRecords(data), *options))
    assert all(type(record) is ReadRecord for record in ours)
    fields = [msgspec.structs.asdict(record) for record in ours]
    assert fields == [{name: getattr(record, name) for name in fields[0]} for record in theirs]
    assert [record.offset for record in ours] == [5, 6]


@pytest.mark.parametrize("of_values", [True, False])
def test_a_deserializer_is_called(of_values: bool) -> None:
    deserializers = (None, bytes.decode) if of_values else (bytes.decode, None)
    (record,) = ReadableRecords(
        TopicPartition("plays", 0), KeptRecords(batch(0, "a")), [], 0, *deserializers, True, READ_COMMITTED
    )
    assert (record.key, record.value) == ((b"k", "0") if of_values else ("k", b"0"))


def test_a_batch_that_is_broken_otherwise_is_still_an_error() -> None:
    data = bytearray(batch(0, "a", "b"))
    data[-3] ^= 1
    with pytest.raises(CorruptRecordException):
        read(bytes(data))


def test_consumers_of_this_process_read_them() -> None:
    read_any_header_name()
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == (KeptRecords, ReadableRecords)
