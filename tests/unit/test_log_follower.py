"""A record becomes the same bytes through the event log as in the worker; what the worker refuses is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.datasets.plays import plays_table
from intentrec_core.history import EventLayout
from intentrec_core.training.members import pack_members
from stream.codec import DecodedPlay, decode_play
from stream.log_follower import PlayReader
from stream.publisher import key_hash
from tests.worlds import START_MS, TinyWorld

DOMAIN = TinyWorld().domain
LAYOUT = EventLayout(DOMAIN)


@dataclass
class Record:
    """A Kafka record, as far as it is read."""

    value: bytes | None
    offset: int = 5
    timestamp: int = START_MS
    key: bytes | None = None
    topic: str = "plays"
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def record(**changes: Any) -> Record:
    fields = {"event_id": "e", "user_id": "u", "item_id": "item-1", "ts": START_MS} | changes
    return Record(json.dumps(fields).encode())


values = st.one_of(
    st.sampled_from(["tv", "phone", "fridge", "12", "1e3", ""]),
    st.booleans(),
    st.integers(-(2**31), 2**31),
    st.floats(-1e6, 1e6, allow_nan=False, width=32),
)


@given(
    device=values, maturity=values, duration=st.none() | st.floats(0, 1e5, width=32), action=st.none() | st.just("play")
)
def test_the_log_keeps_what_the_history_keeps(
    device: Any, maturity: Any, duration: float | None, action: str | None
) -> None:
    sent = record(context={"device": device, "max_maturity": maturity}, duration_s=duration, action=action)
    logged = PlayReader(DOMAIN, None).read(sent)
    play = decode_play(sent, 300_000)
    assert isinstance(play, DecodedPlay)
    try:
        live = LAYOUT.pack(
            item_id=play.item_id,
            event_id=play.event_id,
            ts_ms=play.ts_ms,
            duration_s=play.duration_s,
            attributes=play.attributes,
        )
    except ValueError:
        assert logged is None
        return
    assert logged is not None
    assert (logged.offset, logged.arrival_ms) == (5, START_MS)
    assert pack_members(LAYOUT, plays_table([logged.play])).events.tobytes() == live.data


@pytest.mark.parametrize(
    "refused",
    [
        Record(None),
        Record(b"[1, 2"),
        record(schema_version=2),
        record(item_id=""),
        record(ts=START_MS + 10**7),
        record(context={"max_maturity": "adult"}),
        record(context={"max_maturity": "nan"}),
    ],
)
def test_what_the_worker_sets_aside_is_not_logged(refused: Record) -> None:
    assert PlayReader(DOMAIN, None).read(refused) is None


def test_a_play_in_the_wrong_partition_is_logged_only_where_any_partitioner_is_allowed() -> None:
    sent = record()
    sent.partition = (key_hash(b"u") + 1) % 4
    assert PlayReader(DOMAIN, 4).read(sent) is None
    assert PlayReader(DOMAIN, None).read(sent) is not None
    sent.partition = key_hash(b"u") % 4
    assert PlayReader(DOMAIN, 4).read(sent) is not None
