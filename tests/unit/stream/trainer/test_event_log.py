"""The event log: each offset once whatever files are there, event-time reads, merging, and disks that refuse."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from intentrec_core.errors import DataError, StateError
from intentrec_core.plays.table import PLAYS, PlayRow, plays_table
from stream.trainer.event_log import EventLog, NewestPlay, list_segments, segment_name
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay, backfill, open_writer

TOPIC = "plays"


def logged(offset: int, *, event: str | None = None, ts_ms: int | None = None, user: str = "u") -> LoggedPlay:
    row = PlayRow(
        event or f"e{offset}", user, f"i{offset % 7}", offset * 10 if ts_ms is None else ts_ms, context={"device": "tv"}
    )
    return LoggedPlay(offset, 1_000 + offset, row)


def write(root: Path, *runs: range, partition: int = 0) -> None:
    """Appends and flushes each run of offsets as a segment."""
    with open_writer(root, TOPIC) as writer:
        for run in runs:
            writer.append(partition, [logged(offset) for offset in run], run.stop)
            writer.flush()


def events(root: Path, **query: int) -> list[str]:
    return EventLog(root, TOPIC).plays(**query).column("event_id").to_pylist()


def test_a_play_comes_back_as_it_was_written(tmp_path: Path) -> None:
    row = PlayRow("e", "ü", "i", 1_600_000_000_123, "play", 1.5, "s", {"device": "tv", "maturity": "12"})
    with open_writer(tmp_path, TOPIC) as writer:
        writer.append(3, [LoggedPlay(0, 7, row)], 1)
        writer.flush()
    table = EventLog(tmp_path, TOPIC).plays()
    assert table.schema == PLAYS
    assert table.to_pylist() == [
        {
            "event_id": "e",
            "user_id": "ü",
            "item_id": "i",
            "ts_ms": 1_600_000_000_123,
            "action": "play",
            "duration_s": 1.5,
            "session_id": "s",
            "context": [("device", "tv"), ("maturity", "12")],
        }
    ]


def test_an_empty_log_has_no_plays_and_no_offsets(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "not-there", TOPIC)
    assert log.plays().num_rows == 0
    assert log.next_offsets() == {}
    assert log.num_plays() == 0


def test_offsets_are_recovered_from_the_segments(tmp_path: Path) -> None:
    write(tmp_path, range(5), range(5, 12))
    write(tmp_path, range(3), partition=2)
    with open_writer(tmp_path, TOPIC) as writer:
        assert [writer.next_offset(p) for p in range(3)] == [12, 0, 3]
    assert EventLog(tmp_path, TOPIC).newest_plays() == {0: NewestPlay(11, "e11"), 2: NewestPlay(2, "e2")}


def test_plays_delivered_again_are_left_out(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        assert writer.append(0, [logged(o) for o in range(4)], 4) == 4
        assert writer.append(0, [logged(o) for o in range(2, 6)], 6) == 2
        writer.flush()
        assert writer.append(0, [logged(o) for o in range(6)], 6) == 0
        assert writer.num_buffered == 0
    assert events(tmp_path) == [f"e{o}" for o in range(6)]


def test_offsets_without_a_valid_play_count_as_read(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        writer.append(0, [], 10)  # ten malformed plays
        assert writer.flush() == 0
        writer.append(0, [logged(11)], 15)
        writer.flush()
    assert EventLog(tmp_path, TOPIC).next_offsets() == {0: 15}
    assert [s.path.name for s in list_segments(tmp_path, TOPIC)] == [segment_name(TOPIC, 0, 0, 14)]


def test_overlapping_segments_give_each_offset_once(tmp_path: Path) -> None:
    write(tmp_path / "a", range(10), range(10, 20))
    write(tmp_path / "b", range(4), range(4, 15))
    for segment in list_segments(tmp_path / "b", TOPIC):
        segment.path.rename(tmp_path / "a" / segment.path.name)
    assert events(tmp_path / "a") == [f"e{o}" for o in range(20)]
    assert EventLog(tmp_path / "a", TOPIC).num_plays() == 20
    assert EventLog(tmp_path / "a", TOPIC).next_offsets() == {0: 20}


def test_other_topics_and_foreign_files_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    (tmp_path / segment_name("plays-2", 0, 0, 99)).write_bytes(b"")
    (tmp_path / "notes.parquet").write_bytes(b"")
    assert events(tmp_path) == ["e0", "e1", "e2"]


def test_a_users_repeated_event_id_stands_once_as_it_first_came(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        writer.append(0, [logged(0, event="x", ts_ms=50), logged(1, event="y", ts_ms=40)], 2)
        writer.append(0, [logged(2, event="x", ts_ms=10), logged(3, event="x", user="other", ts_ms=5)], 4)
        writer.flush()
    rows = EventLog(tmp_path, TOPIC).plays().to_pylist()
    assert [(r["user_id"], r["event_id"], r["ts_ms"]) for r in rows] == [
        ("other", "x", 5),
        ("u", "y", 40),
        ("u", "x", 50),
    ]


def test_plays_come_in_event_time_and_equal_times_by_arrival_over_partitions(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        writer.append(
            0, [LoggedPlay(0, 30, PlayRow("late", "u", "i", 7)), LoggedPlay(1, 40, PlayRow("old", "u", "i", 1))], 2
        )
        writer.append(1, [LoggedPlay(0, 20, PlayRow("early", "v", "i", 7))], 1)
        writer.flush()
    assert events(tmp_path) == ["old", "early", "late"]


def test_queries_by_event_time(tmp_path: Path) -> None:
    write(tmp_path, range(10), range(10, 20))
    assert events(tmp_path, since_ms=150, until_ms=180) == ["e15", "e16", "e17"]
    assert events(tmp_path, max_plays=3) == ["e17", "e18", "e19"]
    assert events(tmp_path, until_ms=100, max_plays=2) == ["e8", "e9"]
    assert events(tmp_path, since_ms=190, max_plays=100) == ["e19"]


def test_the_newest_plays_are_found_among_repeats(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        plays = [logged(o, event=f"e{o // 2}", ts_ms=o // 2) for o in range(40)]  # each one twice
        writer.append(0, plays, 40)
        writer.flush()
    assert events(tmp_path, max_plays=5) == ["e15", "e16", "e17", "e18", "e19"]


def test_merging_keeps_every_play_and_few_files(tmp_path: Path) -> None:
    writer = EventLogWriter(tmp_path, TOPIC, merge_at=4, max_segment_plays=80)
    for run in range(120):
        writer.append(0, [logged(o) for o in range(run * 3, run * 3 + 3)], run * 3 + 3)
        writer.flush()
        writer.merge()
    writer.close()
    segments = list_segments(tmp_path, TOPIC)
    assert (
        len(segments) <= 360 / (80 / 4) + 3 * 4
    )  # full ones (four more would not fit), and three of each smaller size
    assert events(tmp_path) == [f"e{o}" for o in range(360)]
    assert max(pq.read_metadata(s.path).num_rows for s in segments) <= 80


def test_merging_rewrites_a_play_only_a_few_times(tmp_path: Path) -> None:
    written: dict[Path, int] = {}
    writer = EventLogWriter(tmp_path, TOPIC, merge_at=4)
    for o in range(64):
        writer.append(0, [logged(o)], o + 1)
        for step in (writer.flush, writer.merge):
            step()
            written |= {
                path: pq.read_metadata(path).num_rows for path in tmp_path.glob("*.parquet") if path not in written
            }
    writer.close()
    rewritten = sum(written.values())
    assert 64 < rewritten <= 64 * (1 + 3)  # once flushed, and once for each of log4(64) sizes


def test_a_gap_that_the_topic_no_longer_holds_is_never_claimed(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        writer.append(0, [logged(o) for o in range(3)], 3)
        writer.flush()
        assert writer.skip_to(0, 50) == 47
        assert writer.skip_to(0, 20) == 0
        writer.append(0, [logged(o) for o in range(50, 53)], 53)
        writer.flush()
    assert [(s.first, s.last) for s in list_segments(tmp_path, TOPIC)] == [(0, 2), (50, 52)]


def test_a_backfill_comes_before_the_topics_plays_and_may_be_repeated(tmp_path: Path) -> None:
    write(tmp_path, range(2, 5))
    earlier = plays_table(logged(offset).play for offset in range(3))  # the last one is on the topic too
    assert backfill(tmp_path, TOPIC, earlier, segment_plays=2) == 3
    assert backfill(tmp_path, TOPIC, earlier, segment_plays=2) == 0
    assert events(tmp_path) == ["e0", "e1", "e2", "e3", "e4"]
    assert EventLog(tmp_path, TOPIC).next_offsets() == {0: 5}
    assert EventLog(tmp_path, TOPIC).newest_plays() == {0: NewestPlay(4, "e4")}


def test_a_second_writer_is_refused_until_the_first_one_is_gone(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC), pytest.raises(StateError, match="another trainer"):
        EventLogWriter(tmp_path, TOPIC)
    EventLogWriter(tmp_path, TOPIC).close()


def test_a_writer_may_be_closed_in_another_thread_than_it_was_opened_in(tmp_path: Path) -> None:
    """The trainer opens it in a worker thread and closes it on the event loop's."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(EventLogWriter, tmp_path, TOPIC).result().close()
    EventLogWriter(tmp_path, TOPIC).close()


def test_a_write_that_fails_loses_nothing_and_the_next_flush_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        writer.append(0, [logged(0)], 1)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", _raise(errno.ENOSPC))
            with pytest.raises(OSError, match="No space"):
                writer.flush()
        assert list(tmp_path.glob(".writing-*")) == []
        writer.append(0, [logged(1)], 2)
        assert writer.flush() == 2
    assert events(tmp_path) == ["e0", "e1"]


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    path = list_segments(tmp_path, TOPIC)[0].path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=path.name):
        EventLog(tmp_path, TOPIC).plays()


def _raise(code: int):
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail
