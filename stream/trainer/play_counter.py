"""Counts the plays of the topic by item, as the trainer reads them: a function of the log, wherever a trainer begins.

    newest table on the topic ─▶ offsets and sums ─ the event log from there on ─ what the follower reads ─▶ CountFold

Counted is what the event log keeps: valid plays in the partition of their member, and a repeat of an event id once. A repeat is
known while it is among the plays at the last REPEAT_OFFSETS offsets of its partition. An erasure subtracts nothing: a sum does
not say whose plays it is of, and it decays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from intentrec_core.engine.item_counts import CountFold
from intentrec_core.history.history import hash64
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_writer import LoggedPlay
from stream.wire.item_counts_record import PackedCounts

#: Some 2 MB of memory a partition. Producers repeat what was not acknowledged within seconds.
REPEAT_OFFSETS = 20_000


class PlayCounter:
    """Sums, and by partition the offset after the last play that is counted. Not thread safe. :meth:`begin` comes first."""

    def __init__(self) -> None:
        self.fold = CountFold()
        self.offsets: dict[int, int] = {}
        self._seen: dict[int, dict[int, int]] = {}

    def begin(self, newest: PackedCounts | None, log: EventLog) -> bool:
        """Goes on from a table: counts what the log has beyond it, and knows the newest plays before it again. Blocks.

        Without a table everything is counted, and so it is where the log has no play of the topic: it was begun anew.
        Returns whether it goes on from the table.
        Raises: DataError naming the segment that cannot be read; ValueError for a table that is none.
        Cost: some 3 µs a play that the table lacks.
        """
        CountFold().add([0], [0])  # compiles, where numba's cache is empty
        goes_on = newest is not None and bool(log.next_offsets())
        if newest is not None and goes_on:
            self.fold = CountFold.of(newest.blocks, newest.head.event_time_ms)
            self.offsets = {int(partition): offset for partition, offset in newest.head.offsets.items()}
        since = {partition: max(0, offset - REPEAT_OFFSETS) for partition, offset in self.offsets.items()}
        for partition, table, next_offset in log.in_log_order(since):
            columns = [table.column(name).to_pylist() for name in ("offset", "user_id", "event_id", "item_id", "ts_ms")]
            self._take(partition, zip(*columns, strict=True), next_offset)
        return goes_on

    def take(self, partition: int, plays: Sequence[LoggedPlay], next_offset: int) -> None:
        """Counts plays that the follower has read up to ``next_offset``; those that are counted already are left out."""
        rows = ((p.offset, p.play.user_id, p.play.event_id, p.play.item_id, p.play.ts_ms) for p in plays)
        self._take(partition, rows, next_offset)

    def _take(self, partition: int, plays: Iterable[tuple[int, str, str, str, int]], next_offset: int) -> None:
        start, seen = self.offsets.get(partition, 0), self._seen.setdefault(partition, {})
        items: list[int] = []
        ts_ms: list[int] = []
        for offset, user_id, event_id, item_id, at_ms in plays:
            play = hash64(f"{user_id}\0{event_id}")
            last = seen.get(play, -1 - REPEAT_OFFSETS)
            seen[play] = offset
            if offset >= start and offset - last > REPEAT_OFFSETS:
                items.append(hash64(item_id))
                ts_ms.append(at_ms)
        self.fold.add(items, ts_ms)
        self.offsets[partition] = max(start, next_offset)
        if len(seen) > 2 * REPEAT_OFFSETS:
            kept = {play: offset for play, offset in seen.items() if next_offset - offset <= REPEAT_OFFSETS}
            self._seen[partition] = kept
