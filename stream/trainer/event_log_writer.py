"""Writes the event log: buffered plays become segments by write, fsync, rename, fsync of the folder, in this order.

One process writes a log: a lock on the folder keeps a second one out and dies with its holder. Plays not flushed are
not lost: the next writer takes the offset up from the segments and reads them from the topic again. A write that fails
(disk full, read-only) changes nothing; the plays stay buffered and the next flush tries again. Members who were
forgotten: see forgotten_plays.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from intentrec_core.errors import DataError, StateError
from intentrec_core.plays.table import PlayRow, play_rows, plays_table
from stream.trainer.event_log import BACKFILL, SEGMENT, STAMP, Segment, cover, list_segments, segment_name
from stream.trainer.event_log_erasure import Forgotten, limits_in, list_forgotten, must_go

_LOCK = ".lock"
_TEMPORARY = ".writing-"


@dataclass(frozen=True, slots=True)
class LoggedPlay:
    """A play with its source offset; ``arrival_ms`` is the Kafka record's timestamp."""

    offset: int
    arrival_ms: int
    play: PlayRow


@dataclass(slots=True)
class _Buffer:
    first: int
    next_offset: int
    plays: list[LoggedPlay] = field(default_factory=list)


class EventLogWriter:
    """The one writer of a topic's event log.

    Raises: StateError when another process writes it; OSError when the folder cannot be written.
    """

    def __init__(self, root: Path, topic: str, *, merge_at: int = 8, max_segment_plays: int = 1_000_000) -> None:
        self.root = root
        self.topic = topic
        self._merge_at = merge_at
        self._max_segment_plays = max_segment_plays
        self._sizes: dict[Path, int] = {}
        root.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(root / _LOCK)
        try:
            self._remove_remains()
        except OSError:
            self.close()
            raise
        self._durable = {p: held.next_offset for p, held in cover(list_segments(root, topic)).items()}
        self._buffers: dict[int, _Buffer] = {}
        self._orders: list[Forgotten] = []

    def close(self) -> None:
        """Gives the lock back. What is buffered is dropped: flush first."""
        os.close(self._lock)

    def next_offset(self, partition: int) -> int:
        """The offset to read next: behind what is buffered, else behind what is on disk, else 0."""
        held = self._buffers.get(partition)
        return held.next_offset if held else self._durable.get(partition, 0)

    @property
    def num_buffered(self) -> int:
        """Plays not on disk yet."""
        return sum(len(held.plays) for held in self._buffers.values())

    def skip_to(self, partition: int, offset: int) -> int:
        """Begins anew at ``offset``, because the topic no longer holds what comes before; returns how many are missed.

        Invariant: a segment never claims offsets that were not read.
        """
        missed = offset - self.next_offset(partition)
        if missed <= 0:
            return 0
        if partition in self._buffers:
            raise ValueError(f"partition {partition} has plays buffered: flush first")
        self._durable[partition] = offset
        return missed

    def append(self, partition: int, plays: Sequence[LoggedPlay], next_offset: int) -> int:
        """Buffers plays read up to ``next_offset`` (offsets between that hold no valid play count as read).

        Plays below :meth:`next_offset` were taken before and are left out. Returns how many were taken.
        """
        start = self.next_offset(partition)
        taken = [play for play in plays if play.offset >= start]
        if next_offset > start:
            held = self._buffers.setdefault(partition, _Buffer(start, start))
            held.plays += taken
            held.next_offset = next_offset
        return len(taken)

    def forget(self, order: Forgotten) -> None:
        """Drops a member's buffered plays, and has the next :meth:`flush` note that those on disk must go.

        Call it when everything read before the order was appended, and before anything behind it is.
        """
        if held := self._buffers.get(order.partition):
            held.plays = [play for play in held.plays if play.play.user_id != order.user_id]
        self._orders.append(order)

    def flush(self) -> int:
        """Makes the buffered plays durable; returns how many.

        Raises: OSError when the disk refuses. Segments already written stand, the others stay buffered.
        """
        num_written = 0
        while self._orders:  # before any segment covers their offsets
            self._write(self.root / self._orders[0].name(self.topic), self._orders[0].user_id.encode())
            del self._orders[0]
        for partition, held in sorted(self._buffers.items()):
            if held.plays:
                table = _segment_table(partition, held.plays)
                path = self.root / segment_name(self.topic, partition, held.first, held.next_offset - 1)
                self._write(path, table)
                num_written += len(held.plays)
                self._durable[partition] = held.next_offset
                del self._buffers[partition]
        return num_written

    def merge(self) -> int:
        """Merges runs of small neighbouring segments into one; returns how many segments went.

        Sizes grow by ``merge_at`` from step to step, so that a play is rewritten a few times, not once a merge.
        Raises: OSError when the disk refuses (nothing is lost), DataError when a segment cannot be read.
        """
        num_gone = 0
        for partition, held in sorted(cover(list_segments(self.root, self.topic)).items()):
            if run := self._mergeable(held.taken):
                table = pa.concat_tables([_read(segment, SEGMENT.names) for segment in run])
                self._write(self.root / segment_name(self.topic, partition, run[0].first, run[-1].last), table)
                num_gone += self._remove(run)
        return num_gone

    def purge(self) -> int:
        """Drops the plays of members whose being forgotten was noted, from every segment; returns how many plays went.

        Raises: OSError when the disk refuses, DataError when a segment cannot be read: what is left goes the next time.
        Cost: reads who played what of every segment before an order, and rewrites those where plays go.
        """
        orders = list_forgotten(self.root, self.topic)
        num_gone = 0
        for segment in list_segments(self.root, self.topic) if orders else ():
            if not (limits := limits_in(segment, orders.values())):
                continue
            goes = must_go(_read(segment, ["user_id", "offset"]), limits)
            if goes.any():
                self._write(segment.path, _read(segment, SEGMENT.names).filter(pa.array(~goes)))
                self._sizes.pop(segment.path, None)
                num_gone += int(goes.sum())
        for path in orders:
            path.unlink()
        if orders:
            _sync_folder(self.root)
        return num_gone

    def _mergeable(self, taken: Sequence[tuple[Segment, int]]) -> list[Segment]:
        """The longest run at the new end that fits one segment and ends with ``merge_at`` of its largest size."""
        run: list[Segment] = []
        num_plays, best, largest = 0, 0, 0
        num_of_size: dict[int, int] = {}
        for segment, start in reversed(taken):
            num_plays += self._size(segment)
            is_next = not run or segment.next_offset == run[-1].first
            if num_plays > self._max_segment_plays or not is_next or start != segment.first:
                break
            run.append(segment)
            size = int(math.log(max(self._size(segment), 1), self._merge_at))
            num_of_size[size] = num_of_size.get(size, 0) + 1
            largest = max(largest, size)
            if num_of_size[largest] >= self._merge_at:
                best = len(run)
        return run[:best][::-1]

    def _size(self, segment: Segment) -> int:
        if segment.path not in self._sizes:
            try:
                self._sizes[segment.path] = int(pq.read_metadata(segment.path).num_rows)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{segment.path}: not a segment of the event log ({error}); move it aside") from error
        return self._sizes[segment.path]

    def _write(self, path: Path, content: pa.Table | bytes) -> None:
        temporary = path.with_name(_TEMPORARY + path.name)
        try:
            with temporary.open("wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    pq.write_table(content, file, compression="zstd", write_page_index=True)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(self.root)

    def _remove_remains(self) -> None:
        """Half-written files of a writer that was killed, and segments that a finished merge made superfluous."""
        for path in self.root.glob(f"{_TEMPORARY}*"):
            path.unlink()
        for held in cover(list_segments(self.root, self.topic)).values():
            self._remove(held.superseded)

    def _remove(self, segments: Sequence[Segment]) -> int:
        for segment in segments:
            segment.path.unlink(missing_ok=True)
            self._sizes.pop(segment.path, None)
        if segments:
            _sync_folder(self.root)
        return len(segments)


@contextlib.contextmanager
def open_writer(root: Path, topic: str) -> Iterator[EventLogWriter]:
    """A writer that gives the lock back at the end; it does not flush. Raises as :class:`EventLogWriter`."""
    writer = EventLogWriter(root, topic)
    try:
        yield writer
    finally:
        writer.close()


def backfill(root: Path, topic: str, plays: pa.Table, *, segment_plays: int = 250_000) -> int:
    """Puts plays of before the topic into the log, so that training knows them; returns how many it added.

    ``plays`` are in schema PLAYS and event-time order. Safe to repeat with the same plays, also after a kill; of a play
    that is on the topic as well, this one is read.

    Raises: StateError while a trainer writes the log; OSError.
    """
    with open_writer(root, topic) as writer:
        start = writer.next_offset(BACKFILL)
        for first in range(start, plays.num_rows, segment_plays):
            rows = play_rows(plays.slice(first, segment_plays))
            logged = [LoggedPlay(first + i, 0, row) for i, row in enumerate(rows)]
            writer.append(BACKFILL, logged, first + len(logged))
            writer.flush()
    return max(0, plays.num_rows - start)


def _locked(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StateError(
            f"{path.parent}: another trainer writes this event log; stop it, or give this one its own"
        ) from None
    return handle


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _segment_table(partition: int, plays: Sequence[LoggedPlay]) -> pa.Table:
    stamps = [[partition] * len(plays), [p.offset for p in plays], [p.arrival_ms for p in plays]]
    table = plays_table(p.play for p in plays)
    arrays = [pa.array(column, f.type) for column, f in zip(stamps, STAMP, strict=True)]
    return pa.table([*table.columns, *arrays], schema=SEGMENT)


def _read(segment: Segment, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(segment.path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{segment.path}: cannot be read ({error}); restore it, or move it aside and lose its plays"
        ) from error
