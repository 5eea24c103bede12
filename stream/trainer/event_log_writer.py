"""Writes the event log: buffered plays become segments by write, fsync, rename and fsync of the folder, in this order.

One process writes a log: a lock on the folder keeps a second process out, and the kernel releases it when its holder dies.
Plays that were not flushed are not lost: the next writer resumes at the offset after the last segment and reads them from the
topic again. A failed write (disk full, read-only) changes nothing: the plays stay buffered and the next flush retries.
Erasure requests: see event_log_erasure.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from intentrec_core.durable_files import TEMPORARY_PREFIX, replacing, sync
from intentrec_core.errors import DataError, StateError
from intentrec_core.plays.table import PlayRow, play_rows, plays_table
from stream.trainer.event_log import BACKFILL, SEGMENT, STAMP, Segment, cover, list_segments, segment_name
from stream.trainer.event_log_erasure import PendingErasure, erase_before, is_erased, list_pending_erasures

_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class LoggedPlay:
    """A play and its source offset. ``arrival_ms`` is the Kafka record's timestamp."""

    offset: int
    arrival_ms: int
    play: PlayRow


@dataclass(slots=True)
class _Buffer:
    first: int
    next_offset: int
    plays: list[LoggedPlay] = field(default_factory=list)


class EventLogWriter:
    """The only writer of a topic's event log.

    Raises: StateError if another process writes this log; OSError if the folder is not writable.
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
            self._remove_leftovers()
        except OSError:
            self.close()
            raise
        self._durable = {p: held.next_offset for p, held in cover(list_segments(root, topic)).items()}
        self._buffers: dict[int, _Buffer] = {}
        self._erasures: list[PendingErasure] = []

    def close(self) -> None:
        """Releases the lock and drops buffered plays: call :meth:`flush` first."""
        self._lock.release()

    def next_offset(self, partition: int) -> int:
        """The offset to read next: after the buffered plays, else after the plays on disk, else 0."""
        held = self._buffers.get(partition)
        return held.next_offset if held else self._durable.get(partition, 0)

    @property
    def num_buffered(self) -> int:
        """Plays not on disk yet."""
        return sum(len(held.plays) for held in self._buffers.values())

    def skip_to(self, partition: int, offset: int) -> int:
        """Resumes at ``offset``, because the topic no longer holds earlier offsets; returns how many are missed.

        Invariant: a segment never covers offsets that were not read.
        """
        missed = offset - self.next_offset(partition)
        if missed <= 0:
            return 0
        if partition in self._buffers:
            raise ValueError(f"partition {partition} has buffered plays: flush first")
        self._durable[partition] = offset
        return missed

    def append(self, partition: int, plays: Sequence[LoggedPlay], next_offset: int) -> int:
        """Buffers the plays read up to ``next_offset``; offsets in between without a valid play count as read.

        Skips plays below :meth:`next_offset`: they are in the log already. Returns how many were buffered.
        """
        start = self.next_offset(partition)
        taken = [play for play in plays if play.offset >= start]
        if next_offset > start:
            held = self._buffers.setdefault(partition, _Buffer(start, start))
            held.plays += taken
            held.next_offset = next_offset
        return len(taken)

    def erase(self, erasure: PendingErasure) -> None:
        """Drops the user's buffered plays; the next :meth:`flush` writes the marker for the plays on disk.

        Call it after appending everything read before the request, and before appending anything read after it.
        """
        if held := self._buffers.get(erasure.partition):
            held.plays = [play for play in held.plays if play.play.user_id != erasure.user_id]
        self._erasures.append(erasure)

    def flush(self) -> int:
        """Makes the buffered plays durable; returns how many.

        Raises: OSError if a write fails. Segments already written remain; all other plays stay buffered.
        """
        num_written = 0
        while self._erasures:  # before any segment covers their offsets
            self._write(self.root / self._erasures[0].file_name(self.topic), self._erasures[0].user_id.encode())
            del self._erasures[0]
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
        """Merges runs of small neighbouring segments into one; returns how many segments were removed.

        Sizes grow by a factor of ``merge_at`` per level, so that a play is rewritten a few times, not in every merge.
        Raises: OSError if a write fails (nothing is lost); DataError if a segment cannot be read.
        """
        num_removed = 0
        for partition, held in sorted(cover(list_segments(self.root, self.topic)).items()):
            if run := self._mergeable(held.taken):
                table = pa.concat_tables([_read(segment, SEGMENT.names) for segment in run])
                self._write(self.root / segment_name(self.topic, partition, run[0].first, run[-1].last), table)
                num_removed += self._remove(run)
        return num_removed

    def purge(self) -> int:
        """Carries out the pending erasures in every segment; returns how many plays were dropped.

        Raises: OSError if a write fails, DataError if a segment cannot be read; the next purge completes the work.
        Cost: reads the user ids of every segment older than a request, and rewrites the segments that lose plays.
        """
        erasures = list_pending_erasures(self.root, self.topic)
        num_erased = 0
        for segment in list_segments(self.root, self.topic) if erasures else ():
            if not (limits := erase_before(segment, erasures.values())):
                continue
            erased = is_erased(_read(segment, ["user_id", "offset"]), limits)
            if erased.any():
                self._write(segment.path, _read(segment, SEGMENT.names).filter(pa.array(~erased)))
                self._sizes.pop(segment.path, None)
                num_erased += int(erased.sum())
        for path in erasures:
            path.unlink()
        if erasures:
            sync(self.root)
        return num_erased

    def _mergeable(self, taken: Sequence[tuple[Segment, int]]) -> list[Segment]:
        """The longest run of the newest segments that fits one segment and has ``merge_at`` segments of its largest size."""
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
                raise DataError(f"{segment.path}: not an event log segment ({error}); move it aside") from error
        return self._sizes[segment.path]

    def _write(self, path: Path, content: pa.Table | bytes) -> None:
        with replacing(path) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                pq.write_table(content, file, compression="zstd", write_page_index=True)

    def _remove_leftovers(self) -> None:
        """Removes half-written files of a killed writer, and segments that a finished merge has superseded."""
        for path in self.root.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink()
        for held in cover(list_segments(self.root, self.topic)).values():
            self._remove(held.superseded)

    def _remove(self, segments: Sequence[Segment]) -> int:
        for segment in segments:
            segment.path.unlink(missing_ok=True)
            self._sizes.pop(segment.path, None)
        if segments:
            sync(self.root)
        return len(segments)


@contextlib.contextmanager
def open_writer(root: Path, topic: str) -> Iterator[EventLogWriter]:
    """A writer that releases its lock at the end, without flushing. Raises: as :class:`EventLogWriter`."""
    writer = EventLogWriter(root, topic)
    try:
        yield writer
    finally:
        writer.close()


def backfill(root: Path, topic: str, plays: pa.Table, *, segment_plays: int = 250_000) -> int:
    """Adds plays older than the topic to the log, so that training sees them; returns how many it added.

    ``plays`` has schema PLAYS, in event-time order. Calling it again with the same plays is safe, also after a kill. If a play
    is on the topic as well, the backfilled one is read.

    Raises: StateError while a trainer writes the log; OSError if a write fails.
    """
    with open_writer(root, topic) as writer:
        start = writer.next_offset(BACKFILL)
        for first in range(start, plays.num_rows, segment_plays):
            rows = play_rows(plays.slice(first, segment_plays))
            logged = [LoggedPlay(first + i, 0, row) for i, row in enumerate(rows)]
            writer.append(BACKFILL, logged, first + len(logged))
            writer.flush()
    return max(0, plays.num_rows - start)


def _locked(path: Path) -> FileLock:
    # Not thread-local: the trainer opens the writer in a worker thread and closes it on the event loop's.
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StateError(
            f"{path.parent}: another trainer writes this event log; stop that trainer, or set another event_log_dir"
        ) from None
    return lock


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
            f"{segment.path}: cannot be read ({error}); restore the file, or move it aside and lose its plays"
        ) from error
