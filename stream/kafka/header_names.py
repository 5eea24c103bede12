"""Records whose header names are not UTF-8, read all the same: Kafka takes any bytes, aiokafka raises on them at every fetch.

One such record would end whatever reads its partition, again after each restart. So aiokafka's records are wrapped: where its
decoder fails, the records from there on are read anew, by its slower decoder in Python; odd bytes of a name become ``\\xff``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: Of a batch: its first offset, and how many bytes follow.
_BATCH_OVERHEAD = struct.Struct(">qi")


class _Text(bytearray):
    """Bytes that can be decoded, whatever they are."""

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
    """The batches of a fetched buffer, as aiokafka's MemoryRecords gives them."""

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
        if end > len(buffer):  # the broker cuts what it sends at its size limit
            return
        yield _TolerantBatch(buffer[start:end])
        start = end


class KeptRecords(MemoryRecords):
    """aiokafka's own, with the bytes it reads."""

    def __init__(self, buffer: bytes) -> None:
        super().__init__(buffer)
        self.buffer = buffer


class ReadableRecords(fetcher.PartitionRecords):
    """aiokafka's own, going on in the slower way where a record cannot be decoded."""

    def __init__(
        self, tp: Any, records: Any, aborted_transactions: Any, fetch_offset: int, *options: Any, **named: Any
    ) -> None:
        self._given = (tp, records, aborted_transactions, options, named)
        super().__init__(tp, records, aborted_transactions, fetch_offset, *options, **named)

    def __next__(self) -> Any:
        tp, records, aborted_transactions, options, named = self._given
        try:
            return super().__next__()
        except (UnicodeDecodeError, CorruptRecordException):
            if not isinstance(records, KeptRecords):
                raise  # this is the slower way: the record is broken in another place
        # All that aborts transactions comes before the offset at which it goes on, or after it: both are seen again.
        slower = _TolerantRecords(records.buffer)
        self._given = (tp, slower, aborted_transactions, options, named)
        super().__init__(tp, slower, aborted_transactions, self.next_fetch_offset, *options, **named)
        return super().__next__()


def read_any_header_name() -> None:
    """Makes every consumer of this process read such records. Calling it again changes nothing."""
    fetcher.MemoryRecords = KeptRecords
    fetcher.PartitionRecords = ReadableRecords
