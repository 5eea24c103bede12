"""Lets aiokafka consumers read records whose header names are not UTF-8. Kafka accepts any bytes; aiokafka raises on them.

One such record would end every consumer of its partition, again after each restart. Therefore this module wraps aiokafka's record
classes. Where the fast decoder fails, the rest of the fetch is decoded again with aiokafka's slower Python decoder, which writes
invalid bytes of a name as ``\\xff``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from msgspec import Struct

#: Start of a record batch: its base offset, and the number of bytes that follow.
_BATCH_OVERHEAD = struct.Struct(">qi")


class _Text(bytearray):
    """Bytes that ``decode`` converts to text even if they are not valid UTF-8."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _Text(found) if isinstance(place, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _TolerantBatch(_DefaultRecordBatchPy):
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: bytearray = _Text(self._buffer)


class _TolerantRecords:
    """The batches of a fetched buffer, with the interface of aiokafka's MemoryRecords."""

    def __init__(self, buffer: bytes) -> None:
        self._batches = _whole_batches(buffer)
        self._next = next(self._batches, None)

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> _TolerantBatch | None:
        batch, self._next = self._next, next(self._batches, None)
        return batch


def _whole_batches(buffer: bytes) -> Iterator[_TolerantBatch]:
    start, overhead = 0, _BATCH_OVERHEAD.size
    while start + overhead <= len(buffer):
        end = start + overhead + _BATCH_OVERHEAD.unpack_from(buffer, start)[1]
        if end > len(buffer):  # the broker truncates a response at its size limit
            return
        yield _TolerantBatch(buffer[start:end])
        start = end


class KeptRecords(MemoryRecords):
    """aiokafka's MemoryRecords; keeps the bytes it was created from."""

    def __init__(self, buffer: bytes) -> None:
        super().__init__(buffer)
        self.buffer = buffer


class ReadRecord(Struct, gc=False):
    """A consumed record with those fields of aiokafka's ConsumerRecord that are read here.

    Making aiokafka's, a dataclass of eleven fields, takes longer than decoding the record.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class ReadableRecords(fetcher.PartitionRecords):
    """aiokafka's PartitionRecords; switches to the slow decoder at a record that the fast one cannot decode.

    Yields :class:`ReadRecord`, or aiokafka's own records where a deserializer is set.
    """

    def __init__(
        self, tp: Any, records: Any, aborted_transactions: Any, fetch_offset: int, *options: Any, **named: Any
    ) -> None:
        self._given = (tp, records, aborted_transactions, options, named)
        super().__init__(tp, records, aborted_transactions, fetch_offset, *options, **named)

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        if self._key_deserializer or self._value_deserializer:
            return super()._consumer_record(tp, record)
        return ReadRecord(
            tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
        )

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except (UnicodeDecodeError, CorruptRecordException):
            if not isinstance(self._given[1], KeptRecords):
                raise  # already the slow decoder: something else of the record is broken
        tp, records, aborted_transactions, options, named = self._given
        # The markers of aborted transactions are read again, whether they come before or after the offset to continue from.
        slower = _TolerantRecords(records.buffer)
        self._given = (tp, slower, aborted_transactions, options, named)
        super().__init__(tp, slower, aborted_transactions, self.next_fetch_offset, *options, **named)
        return super().__next__()


def read_any_header_name() -> None:
    """Lets every consumer of this process read such records. Idempotent."""
    fetcher.MemoryRecords = KeptRecords
    fetcher.PartitionRecords = ReadableRecords
