"""When plays of a table are due, and how each becomes a message."""

from __future__ import annotations

import pytest

from intentrec_core.errors import ConfigError
from intentrec_core.plays.table import PlayRow
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
