"""The counts are a function of the log: wherever trainers were cut off, and whatever table they went on from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine.item_counts import ENTRY
from intentrec_core.features.count_columns import DECAYS_S
from intentrec_core.history.history import hash64
from intentrec_core.plays.table import PlayRow
from stream.trainer import play_counter
from stream.trainer.event_log import EventLog
from stream.trainer.event_log_writer import LoggedPlay, open_writer
from stream.trainer.play_counter import PlayCounter
from stream.wire.item_counts_record import PackedCounts, block_hash
from stream.wire.messages import ItemCountsHead

#: Sums of the same plays in another order differ by rounding alone.
TOLERANCE = 1e-9
NUM_PARTITIONS = 2
START_MS = 1_772_323_200_000

#: A play of an item at a time; a repeat of one of the last plays; a flush of the log; a table; an end of the trainer.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("play"), st.integers(0, NUM_PARTITIONS - 1), st.integers(0, 4), st.integers(0, 10**9)),
        st.tuples(st.just("repeat"), st.integers(0, NUM_PARTITIONS - 1), st.integers(1, 4), st.just(0)),
        st.tuples(st.sampled_from(["flush", "table", "restart"]), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=40,
)
Log = dict[int, list[LoggedPlay]]


def naive_sums(log: Log) -> dict[int, list[float]]:
    """First and newest play and the sums of each item, by definition; a repeat within the known offsets counts once."""
    plays: dict[int, list[int]] = {}
    for logged in log.values():
        for place, play in enumerate(logged):
            known = logged[max(0, place - play_counter.REPEAT_OFFSETS) : place]
            if play.play.event_id not in [earlier.play.event_id for earlier in known]:
                plays.setdefault(hash64(play.play.item_id), []).append(play.play.ts_ms)
    return {
        item: [min(at), max(at), *(sum(math.exp((ms - max(at)) / 1000 / decay) for ms in at) for decay in DECAYS_S)]
        for item, at in plays.items()
    }


def sums(counter: PlayCounter) -> dict[int, list[float]]:
    blocks = [counter.fold.block(number) for number in range(counter.fold.num_blocks)]
    entries = np.frombuffer(b"".join(blocks), dtype=ENTRY)
    return {int(e["item_hash"]): [float(e["first_ms"]), float(e["newest_ms"]), *e["sums"].tolist()] for e in entries}


def packed(counter: PlayCounter) -> PackedCounts | None:
    fold = counter.fold
    if fold.newest_ms is None:
        return None
    blocks = [fold.block(number) for number in range(fold.num_blocks)]
    head = ItemCountsHead(
        sequence=1,
        event_time_ms=fold.newest_ms,
        offsets={str(partition): offset for partition, offset in counter.offsets.items()},
        decays_s=list(DECAYS_S),
        num_items=len(fold),
        blocks=[block_hash(block) for block in blocks],
        written_at="",
    )
    return PackedCounts(head, blocks)


def run(steps: Sequence[tuple[str, int, int, int]], folder: Path) -> tuple[Log, PlayCounter]:
    """Plays are read in the order of the steps; a trainer that ends loses what it had not flushed and reads it again."""
    log: Log = {partition: [] for partition in range(NUM_PARTITIONS)}
    table: PackedCounts | None = None
    counter, steps = PlayCounter(), list(steps)
    counter.begin(None, EventLog(folder, "plays"))
    while True:
        with open_writer(folder, "plays") as writer:
            for partition, logged in log.items():  # what the log lacks is read again
                if again := logged[writer.next_offset(partition) :]:
                    writer.append(partition, again, len(logged))
                    counter.take(partition, again, len(logged))
            while steps:
                kind, partition, which, at = steps.pop(0)
                logged = log[partition]
                if kind == "play" or (kind == "repeat" and len(logged) >= which):
                    number = len(logged)
                    row = PlayRow(f"{partition}-{number}", f"user-{partition}", f"item-{which}", START_MS + at, None)
                    logged.append(LoggedPlay(number, 0, row if kind == "play" else logged[-which].play))
                    writer.append(partition, logged[-1:], number + 1)
                    counter.take(partition, logged[-1:], number + 1)
                elif kind == "flush":
                    writer.flush()
                elif kind == "table":
                    table = packed(counter)
                elif kind == "restart":
                    break
            else:
                return log, counter
        counter = PlayCounter()
        counter.begin(table, EventLog(folder, "plays"))


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_the_same_log_gives_the_same_table(steps: list[tuple[str, int, int, int]]) -> None:
    before = play_counter.REPEAT_OFFSETS
    play_counter.REPEAT_OFFSETS = 3
    try:
        with tempfile.TemporaryDirectory() as folder:
            log, counter = run(steps, Path(folder))
            wanted, found = naive_sums(log), sums(counter)
    finally:
        play_counter.REPEAT_OFFSETS = before
    assert found.keys() == wanted.keys()
    for item, values in wanted.items():
        np.testing.assert_allclose(found[item], values, rtol=TOLERANCE)
    assert counter.offsets == {p: len(logged) for p, logged in log.items() if p in counter.offsets}
