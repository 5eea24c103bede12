"""Reads the event log: plays in Parquet segments on disk, each play exactly once even if a writer was killed.

    <root>/<topic>-<partition>-<first>-<last>.parquet     plays at source offsets first..last of one partition
    <root>/<topic>-backfill-<first>-<last>.parquet        plays older than the topic, numbered in their own order

The file name is the commit: one rename creates a segment, and the covered offsets are read from the file names, never from
a consumer group's commits. Segments of a partition may overlap (after an interrupted merge, or a second writer that was
believed dead); a reader walks them in offset order and takes each offset once. This module only reads: it needs no lock
and no broker.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from intentrec_core.errors import DataError
from intentrec_core.plays.table import PLAYS

STAMP = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("arrival_ms", pa.int64(), nullable=False),
    ]
)
SEGMENT = pa.schema([*PLAYS, *STAMP])
BACKFILL = -1
"""Partition number of plays that were never on the topic, such as the data set that a first bundle was trained on."""
_NAME = re.compile(
    r"(?P<topic>[A-Za-z0-9._-]+)-(?P<partition>\d+|backfill)-(?P<first>\d{20})-(?P<last>\d{20})\.parquet"
)
Result = TypeVar("Result")

#: A merge may remove a segment between listing and opening it. Each retry lists again, and merges are minutes apart.
_RETRIES = 5


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file: the plays of ``partition`` at source offsets ``first`` to ``last``, both included."""

    partition: int
    first: int
    last: int
    path: Path

    @property
    def next_offset(self) -> int:
        """The first offset after this segment."""
        return self.last + 1


@dataclass(frozen=True, slots=True)
class NewestPlay:
    """The last logged play of a partition, for comparison with the record that the topic holds at that offset."""

    offset: int
    event_id: str


def segment_name(topic: str, partition: int, first: int, last: int) -> str:
    """File name of a segment."""
    return f"{topic}-{'backfill' if partition == BACKFILL else partition}-{first:020d}-{last:020d}.parquet"


def list_segments(root: Path, topic: str) -> list[Segment]:
    """All segments of ``topic`` under ``root``, by partition and offset; none if the folder does not exist yet."""
    if not root.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in root.iterdir())
    return sorted(
        Segment(
            BACKFILL if m["partition"] == "backfill" else int(m["partition"]), int(m["first"]), int(m["last"]), path
        )
        for m, path in matches
        if m is not None and m["topic"] == topic
    )


@dataclass(frozen=True, slots=True)
class Cover:
    """How one partition's segments cover its offsets.

    ``taken``: segments in offset order, each with the first offset to read from it. ``superseded``: segments that add no
    play. ``next_offset``: the first offset after all segments.
    """

    taken: tuple[tuple[Segment, int], ...]
    superseded: tuple[Segment, ...]
    next_offset: int


def cover(segments: Iterable[Segment]) -> dict[int, Cover]:
    """Per partition, which offsets are read from which segment. Of two segments with the same start, the longer one is used."""
    by_partition: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_partition[segment.partition].append(segment)
    covers = {}
    for partition, held in by_partition.items():
        taken: list[tuple[Segment, int]] = []
        superseded: list[Segment] = []
        reached = 0
        for segment in sorted(held, key=lambda s: (s.first, -s.last)):
            if segment.next_offset <= reached:
                superseded.append(segment)
                continue
            taken.append((segment, max(segment.first, reached)))
            reached = segment.next_offset
        covers[partition] = Cover(tuple(taken), tuple(superseded), reached)
    return covers


class EventLog:
    """Reads the plays of one topic. Each call sees the log as it is at that moment."""

    def __init__(self, root: Path, topic: str) -> None:
        self.root = root
        self.topic = topic

    def next_offsets(self) -> dict[int, int]:
        """Per partition of the topic, the first source offset after the log's end."""
        return {p: held.next_offset for p, held in self._covers().items() if p != BACKFILL}

    def newest_plays(self) -> dict[int, NewestPlay]:
        """Per partition of the topic, the play with the highest offset; partitions without plays are absent."""
        newest = {}
        for partition, held in self._covers().items():
            if partition == BACKFILL:
                continue
            for segment, _ in reversed(held.taken):
                table = _read(segment, ["offset", "event_id"])
                if table.num_rows:
                    last = table.slice(table.num_rows - 1).to_pylist()[0]
                    newest[partition] = NewestPlay(last["offset"], last["event_id"])
                    break
        return newest

    def num_plays(self) -> int:
        """Number of plays in the log, including repeats of an event id. Cost: opens every segment's footer."""
        return self._retried(lambda covers: sum(_num_rows(segment, start) for segment, start in _taken(covers)))

    def plays(
        self, *, since_ms: int | None = None, until_ms: int | None = None, max_plays: int | None = None
    ) -> pa.Table:
        """Plays with event time in [``since_ms``, ``until_ms``), limited to the newest ``max_plays``.

        Returns schema PLAYS, sorted by event time, then by arrival. A repeated event id of a user is returned once, as it first
        arrived. If the limit falls among plays with equal event time, the later arrivals are kept.

        Raises: DataError naming the segment that cannot be read.
        Cost: memory for the returned plays, twice that with ``max_plays``; segments without a play in the range are
        skipped by their statistics.
        """

        def read(covers: Mapping[int, Cover]) -> pa.Table:
            since = since_ms if max_plays is None else _since_newest(covers, since_ms, until_ms, max_plays)
            tables = [_read(s, SEGMENT.names, start, since, until_ms) for s, start in _taken(covers)]
            return pa.concat_tables(tables) if tables else SEGMENT.empty_table()

        table = self._retried(read)
        columns = {name: table.column(name).to_numpy() for name in ("arrival_ms", "partition", "offset", "ts_ms")}
        arrived = np.lexsort((columns["offset"], columns["partition"], columns["arrival_ms"]))
        first = arrived[_first_of_each(table, arrived)]
        order = first[np.argsort(columns["ts_ms"][first], kind="stable")]
        if max_plays is not None:
            order = order[max(0, len(order) - max_plays) :]
        return table.select(PLAYS.names).take(pa.array(order)).combine_chunks()

    def in_log_order(self, since: Mapping[int, int]) -> Iterator[tuple[int, pa.Table, int]]:
        """The plays of each partition in the order of their offsets, from an offset on (0 where none is given), with repeats of
        an event id: partition, a table with ``offset``, ``user_id``, ``event_id``, ``item_id`` and ``ts_ms``, and the end.

        Raises: DataError naming the segment that cannot be read; FileNotFoundError where segments are merged meanwhile.
        Cost: memory for one segment.
        """
        columns = ["offset", "user_id", "event_id", "item_id", "ts_ms"]
        for segment, start in _taken(self._covers()):
            first = max(start, since.get(segment.partition, 0))
            if first < segment.next_offset:
                yield segment.partition, _read(segment, columns, first), segment.next_offset

    def _covers(self) -> dict[int, Cover]:
        return cover(list_segments(self.root, self.topic))

    def _retried(self, read: Callable[[Mapping[int, Cover]], Result]) -> Result:
        """Reads again from a new listing if a merge removed a segment in between."""
        for _ in range(_RETRIES - 1):
            with contextlib.suppress(FileNotFoundError):  # a merge removed it: list again
                return read(self._covers())
        return read(self._covers())


def _taken(covers: Mapping[int, Cover]) -> list[tuple[Segment, int]]:
    return [pair for _, held in sorted(covers.items()) for pair in held.taken]


def _since_newest(
    covers: Mapping[int, Cover], since_ms: int | None, until_ms: int | None, max_plays: int
) -> int | None:
    """Event time of the oldest of the newest ``2 * max_plays`` plays: enough for ``max_plays`` even if half are repeats."""
    columns = [_read(s, ["ts_ms"], start, since_ms, until_ms).column("ts_ms") for s, start in _taken(covers)]
    ts_ms = np.concatenate([np.zeros(0, dtype=np.int64), *(column.to_numpy() for column in columns)])
    place = len(ts_ms) - 2 * max_plays
    return since_ms if place <= 0 else int(np.partition(ts_ms, place)[place])


def _num_rows(segment: Segment, start: int) -> int:
    if start == segment.first:
        return int(pq.read_metadata(segment.path).num_rows)
    return int(_read(segment, ["offset"], start).num_rows)


def _read(
    segment: Segment, columns: list[str], start: int = 0, since_ms: int | None = None, until_ms: int | None = None
) -> pa.Table:
    filters: list[tuple[str, str, int]] = []
    if start > segment.first:
        filters.append(("offset", ">=", start))
    if since_ms is not None:
        filters.append(("ts_ms", ">=", since_ms))
    if until_ms is not None:
        filters.append(("ts_ms", "<", until_ms))
    try:
        return pq.read_table(segment.path, columns=columns, filters=filters or None)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{segment.path}: cannot be read ({error}); restore the file, or move it aside and lose its plays"
        ) from error


def _first_of_each(table: pa.Table, arrived: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in ``arrived`` of the first play of each (user, event id), in arrival order."""
    if not len(arrived):
        return arrived
    users = table.column("user_id").combine_chunks().dictionary_encode()
    events = table.column("event_id").combine_chunks().dictionary_encode()
    keys = users.indices.to_numpy().astype(np.int64) * len(events.dictionary) + events.indices.to_numpy()
    _, first = np.unique(keys[arrived], return_index=True)
    return np.sort(first)
