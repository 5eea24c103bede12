"""When plays of a table are due, and how each becomes a message."""

from __future__ import annotations

import math

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.plays.table import PlayRow, check_plays, play_rows, plays_table
from stream.kafka.replay import Pace, play_message
from stream.wire.codec import DecodedPlay, decode_play, encode


def test_a_rate_spaces_plays_evenly_whatever_their_times() -> None:
    pace = Pace(rate=50.0)
    assert [pace.due_s(i, ts_ms, 0) for i, ts_ms in enumerate([0, 0, 10**9])] == [0.0, 0.02, 0.04]


def test_a_speed_keeps_the_distances_of_event_time() -> None:
    pace = Pace(speed=3600.0)
    assert pace.due_s(7, 1_000_000 + 7_200_000, 1_000_000) == pytest.approx(2.0)


def test_without_a_pace_everything_is_due_at_once() -> None:
    assert Pace().due_s(10**6, 10**12, 0) == 0.0


@pytest.mark.parametrize("given", [{"speed": 1.0, "rate": 1.0}, {"speed": 0.0}, {"rate": -3.0}])
def test_a_pace_that_means_nothing_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        Pace(**given)


def test_entries_without_a_value_are_left_out() -> None:
    row = PlayRow("e1", "u1", "i1", 888_000_000_000, context={"device": None, "rating": "4"})
    assert play_message(row).context == {"rating": "4"}


def test_a_replayed_play_is_a_valid_message_with_everything_it_had() -> None:
    row = PlayRow("e1", "müller", "i1", 888_000_000_000, "continue", 61.5, "s1", {"rating": "4"})

    class Record:
        key = row.user_id.encode()
        value = encode(play_message(row))
        timestamp = 1_700_000_000_000

    decoded = decode_play(Record(), 0, 300_000)
    assert isinstance(decoded, DecodedPlay)
    assert (decoded.event_id, decoded.user_id, decoded.item_id, decoded.ts_ms) == ("e1", "müller", "i1", row.ts_ms)
    assert decoded.duration_s == 61.5
    assert decoded.attributes == {"rating": "4", "action": "continue"}


NOW_MS = 1_700_000_000_000
LENGTHS = st.sampled_from([0, 1, 128, 129, 256, 257, 1024, 1025])
TEXTS = st.builds(lambda letter, length: letter * length, st.sampled_from('aü\n"'), LENGTHS)
MAPS = st.dictionaries(TEXTS, st.none() | TEXTS, max_size=2) | st.integers(63, 66).map(
    lambda size: {str(number): "x" for number in range(size)}
)
COLUMNS = {
    "event_id": TEXTS,
    "user_id": TEXTS,
    "item_id": TEXTS,
    "action": st.none() | TEXTS,
    "session_id": st.none() | TEXTS,
    "duration_s": st.none() | st.sampled_from([-1.0, 0.0, 1.5, math.nan, math.inf, 31_622_400.0, 31_622_402.0]),
    "context": st.none() | MAPS,
}


@pytest.mark.parametrize("column", COLUMNS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_training_and_replay_take_is_taken_by_the_worker(column: str, data: st.DataObject) -> None:
    row = PlayRow("e", "u", "i", NOW_MS)._replace(**{column: data.draw(COLUMNS[column])})
    try:
        (checked,) = play_rows(check_plays(plays_table([row])))
    except DataError:
        event(f"{column} refused")
        return

    class Record:
        key = checked.user_id.encode()
        value = encode(play_message(checked))
        timestamp = NOW_MS

    assert isinstance(decode_play(Record(), 0, 300_000), DecodedPlay)
