"""Erasure in the event log: exactly the plays of that user from before the erasure request are removed."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.trainer.event_log import EventLog, list_segments
from stream.trainer.event_log_erasure import PendingErasure, list_pending_erasures
from stream.trainer.event_log_writer import EventLogWriter, LoggedPlay, backfill, open_writer
from stream.trainer.log_follower import PlayReader
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from stream.wire.routing import key_hash
from tests.unit.stream.trainer.test_event_log import TOPIC, events, logged
from tests.worlds.tiny_plays import random_plays
from tests.worlds.tiny_world import TinyWorld


def follow(writer: EventLogWriter, partition: int, *plays: str | None, first: int = 0) -> None:
    """Appends a play of each user named from offset ``first`` on; "-ann" is a request to erase ann."""
    for offset, user in enumerate(plays, start=first):
        assert user is not None
        if user.startswith("-"):
            writer.append(partition, [], offset + 1)
            writer.erase(PendingErasure(partition, offset, user[1:]))
        else:
            writer.append(partition, [logged(offset, event=f"{partition}.{offset}", user=user)], offset + 1)


def test_plays_before_the_request_go_and_later_plays_stay(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        follow(writer, 0, "ann", "ben", "ann", "ben")
        follow(writer, 1, "ann")
        writer.flush()
        follow(writer, 0, "ben", "ann", "-ann", "ann", "ben", first=4)
        writer.flush()
        assert writer.purge() == 2
        assert list_pending_erasures(tmp_path, TOPIC) == {}
        assert writer.next_offset(0) == 9
        assert writer.purge() == 0
    assert set(events(tmp_path)) == {"0.1", "0.3", "0.4", "0.7", "0.8", "1.0"}
    assert EventLog(tmp_path, TOPIC).next_offsets() == {0: 9, 1: 1}


def test_backfilled_plays_go_too_and_are_not_backfilled_again(tmp_path: Path) -> None:
    plays = random_plays(members=3, plays=60)
    backfill(tmp_path, TOPIC, plays)
    with open_writer(tmp_path, TOPIC) as writer:
        follow(writer, 0, "-user-1")
        writer.flush()
        assert writer.purge() > 0
    assert backfill(tmp_path, TOPIC, plays) == 0
    kept = EventLog(tmp_path, TOPIC).plays().column("user_id").to_pylist()
    assert set(kept) == {"user-0", "user-2"}


def test_no_byte_of_the_member_is_left_on_the_disk(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        follow(writer, 0, *["ben", "somebody-special"] * 50)
        writer.flush()
        assert any(b"somebody-special" in path.read_bytes() for path in tmp_path.iterdir())
        follow(writer, 0, "-somebody-special", "ben", first=100)
        writer.flush()
        writer.purge()
    assert not any(b"somebody-special" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_log_of_forgotten_members_only_is_empty_and_goes_on(tmp_path: Path) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        follow(writer, 0, "ann", "ann", "ann")
        writer.flush()
        follow(writer, 0, "-ann", first=3)
        writer.flush()
        writer.purge()
        follow(writer, 0, "ben", first=4)
        writer.flush()
        writer.merge()
    log = EventLog(tmp_path, TOPIC)
    assert (log.num_plays(), events(tmp_path)) == (1, ["0.4"])
    newest = log.newest_plays()[0]
    assert (newest.offset, newest.event_id) == (4, "0.4")


def test_a_disk_that_refuses_leaves_the_request_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_writer(tmp_path, TOPIC) as writer:
        follow(writer, 0, "ann", "ben")
        writer.flush()
        follow(writer, 0, "-ann", "ben", first=2)
        honest, refused = Path.replace, ".forget"

        def refuse(self: Path, target: Path) -> Path:
            if target.suffix == refused:
                raise OSError(errno.ENOSPC, "No space left on device")
            return honest(self, target)

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="No space"):
            writer.flush()
        assert EventLog(tmp_path, TOPIC).next_offsets() == {0: 2}, (
            "no segment covers the request before its marker is durable"
        )
        refused = ""
        writer.flush()
        refused = ".parquet"
        with pytest.raises(OSError, match="No space"):
            writer.purge()
        assert len(list_pending_erasures(tmp_path, TOPIC)) == 1
        refused = ""
        assert writer.purge() == 1
    assert events(tmp_path) == ["0.1", "0.3"]


@given(
    st.lists(st.sampled_from(["ann", "ben", "-ann", "-ben", "flush", "merge", "purge", "restart"]), max_size=40),
)
def test_whatever_comes_in_between_exactly_the_right_plays_are_left(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    root = tmp_path_factory.mktemp("log")
    topic = [step for step in steps if step.removeprefix("-") in ("ann", "ben")]
    writer = EventLogWriter(root, TOPIC, merge_at=2)
    for step in steps:
        if step == "restart":
            writer.close()
            writer = EventLogWriter(root, TOPIC, merge_at=2)
        elif step in ("flush", "merge", "purge"):
            getattr(writer, step)()
        else:
            position = writer.next_offset(0)
            follow(writer, 0, *topic[position : position + 1], first=position)
    position = writer.next_offset(0)
    follow(writer, 0, *topic[position:], first=position)
    writer.flush()
    writer.purge()
    writer.close()
    last = {step[1:]: offset for offset, step in enumerate(topic) if step.startswith("-")}
    kept = {f"0.{o}" for o, user in enumerate(topic) if not user.startswith("-") and o > last.get(user, -1)}
    assert set(events(root)) == kept
    assert not list(root.glob("*.forget"))
    assert all(segment.partition == 0 for segment in list_segments(root, TOPIC))


@dataclass
class Record:
    value: bytes | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ((CONTROL_HEADER, FORGET),)
    offset: int = 5
    timestamp: int = 1_700_000_000_000
    topic: str = "plays"
    partition: int = 0


def test_the_trainer_reads_an_erasure_request_as_the_worker_does() -> None:
    reader = PlayReader(TinyWorld().domain, 4)
    home = key_hash(b"ann") % 4
    assert reader.erased_user(Record(None, b"ann", partition=home)) == "ann"
    assert reader.erased_user(Record(None, b"ann", partition=(home + 1) % 4)) is None
    assert reader.erased_user(Record(None, None, partition=home)) is None
    assert reader.erased_user(Record(None, b"ann", ((CONTROL_HEADER, b"other"),), partition=home)) is None
    play = json.dumps({"event_id": "e", "user_id": "ann", "item_id": "i", "ts": 1_700_000_000_000}).encode()
    assert reader.read(Record(play, b"ann", partition=home)) is None, (
        "an erasure request is not a play, whatever its value is"
    )
    assert isinstance(reader.read(Record(play, b"ann", (), partition=home)), LoggedPlay)
