"""Bytes to plays: a play is valid or has a reason; nothing raises."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.errors import RejectReason
from stream.wire import codec
from stream.wire.codec import (
    DecodedPlay,
    RejectedPlay,
    decode_play,
    encode,
    encode_output,
    iso_time,
    parse_time,
    with_latency,
)
from stream.wire.messages import Announcement, Play, Recommendation, RecommendedItem, Source

NOW_MS = 1_772_396_100_000
MAX_FUTURE_MS = 300_000
PLAY = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "ts": NOW_MS}


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = b"u1"
    timestamp: int = NOW_MS


def decode(change=None, /, *, key=b"u1", timestamp=NOW_MS, **fields):
    value = json.dumps(PLAY | (change or {}) | fields).encode()
    return decode_play(Record(value, key, timestamp), MAX_FUTURE_MS)


def reason(change=None, /, **keywords):
    play = decode(change, **keywords)
    assert isinstance(play, RejectedPlay)
    assert play.detail
    assert len(play.detail) <= 200
    assert "\n" not in play.detail
    return play.reason


def reason_of(value):
    play = decode_play(Record(value), MAX_FUTURE_MS)
    return play.reason if isinstance(play, RejectedPlay) else None


def test_a_play_in_full():
    play = decode(
        action="watch", duration_s=12.5, session_id="s1", context={"device": "tv", "limit": 12, "kids": False}
    )
    assert play == DecodedPlay(
        "e1", "u1", "i1", NOW_MS, 12.5, "s1", {"device": "tv", "limit": 12, "kids": False, "action": "watch"}
    )


def test_a_play_in_short_and_without_a_key():
    assert decode(key=None) == DecodedPlay("e1", "u1", "i1", NOW_MS, None, None, {})


def test_the_action_is_not_overruled_by_a_context_entry_of_that_name():
    assert decode(action="watch", context={"action": "buy"}).attributes == {"action": "watch"}


def test_fields_that_are_not_known_are_ignored():
    assert isinstance(decode(a_field_of_next_year=[{"x": None}]), DecodedPlay)


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("2026-03-01T20:15:00Z", NOW_MS),
        ("2026-03-01T20:15:00", NOW_MS),
        ("2026-03-01T21:15:00.000+01:00", NOW_MS),
        ("2026-03-01T20:14:59.9999", NOW_MS - 1),  # rounded down: never later than it was
        ("2026-03-01 20:15:00+0000", NOW_MS),
        ("1970-01-01", 0),
    ],
)
def test_times_as_iso_8601(text, ts_ms):
    assert decode(ts=text).ts_ms == ts_ms


def test_what_is_not_a_json_object_of_the_right_types():
    for value in (None, b""):
        assert reason_of(value) is RejectReason.EMPTY
    for value in (b"{", b"\xff\xfe", b'{"event_id": "\xff"}', b'{"ts": NaN}', b'{"user_id": "\\ud800"}'):
        assert reason_of(value) is RejectReason.MALFORMED
    for value in (b"[]", b"3", b"null", b"{}", b'"text"'):
        assert reason_of(value) is RejectReason.INVALID_FIELD
    for unread in (b', "x": "\xff"}', b', "\xff": 1}', b', "x": ["\xed\xa0\x80"]}'):
        assert reason_of(json.dumps(PLAY).encode()[:-1] + unread) is RejectReason.MALFORMED
    deep = json.dumps(PLAY)[:-1].encode() + b', "x": ' + b"[" * 200_000
    assert reason_of(deep) is RejectReason.MALFORMED


def test_the_limit_of_a_value_is_one_megabyte():
    padded = json.dumps(PLAY).encode().ljust(1_000_000)
    assert reason_of(padded) is None
    assert reason_of(padded + b" ") is RejectReason.OVERSIZED


@pytest.mark.parametrize("name", ["event_id", "user_id", "item_id"])
def test_ids_have_1_to_256_bytes(name):
    for bad in ("", "i" * 257, "é" * 129, 3, None):
        assert reason({name: bad}) is RejectReason.INVALID_FIELD
    for good in ("i", "i" * 256, "é" * 128):
        play = decode({name: good}, key=None)
        assert getattr(play, name) == good


def test_a_missing_field_is_named():
    value = json.dumps({name: PLAY[name] for name in ("event_id", "user_id", "ts")}).encode()
    play = decode_play(Record(value), MAX_FUTURE_MS)
    assert play.reason is RejectReason.INVALID_FIELD
    assert "item_id" in play.detail


def test_an_unknown_schema_says_so_even_where_its_fields_are_others():
    assert reason(schema_version=2) is RejectReason.UNKNOWN_SCHEMA
    assert reason(schema_version="2.0") is RejectReason.UNKNOWN_SCHEMA
    assert reason(schema_version=2, ts={"seconds": 5}) is RejectReason.UNKNOWN_SCHEMA
    assert reason_of(b'{"schema_version": 9, "who": "u1"}') is RejectReason.UNKNOWN_SCHEMA


def test_numbers_out_of_range():
    for change in (
        {"ts": -1},
        {"ts": 4_102_444_800_000},
        {"ts": NOW_MS * 1000},
        {"ts": 10**30},
        {"ts": "1969-12-31T23:59:59Z"},
        {"ts": "2100-01-01T00:00:00Z"},
        {"duration_s": -0.5},
        {"duration_s": 31_622_401},
        {"context": {"limit": 3.5e38}},
        {"context": {"limit": 2**53 + 1}},
        {"context": {"limit": 10**400}},
    ):
        assert reason(change) is RejectReason.OUT_OF_RANGE, change
    assert reason_of(json.dumps(PLAY).encode()[:-1] + b', "duration_s": 1e999}') is RejectReason.OUT_OF_RANGE


def test_fields_of_another_type_or_form():
    for change in (
        {"ts": "yesterday"},
        {"ts": "2026-13-01T00:00:00Z"},
        {"ts": "1772396100000"},
        {"ts": 1.5},
        {"ts": True},
        {"duration_s": "12"},
        {"context": {"x": None}},
        {"context": {"x": {}}},
        {"context": {"": 1}},
        {"context": {"x": "y" * 1025}},
        {"context": {str(i): i for i in range(65)}},
        {"action": ""},
    ):
        assert reason(change) is RejectReason.INVALID_FIELD, change


def test_a_play_may_lie_ahead_of_its_record_by_the_tolerance_only():
    assert isinstance(decode(ts=NOW_MS + MAX_FUTURE_MS), DecodedPlay)
    assert reason(ts=NOW_MS + MAX_FUTURE_MS + 1) is RejectReason.FUTURE
    assert isinstance(decode(ts=0), DecodedPlay)
    assert isinstance(decode(ts=NOW_MS, timestamp=-1), DecodedPlay)  # a record without a timestamp


def test_the_key_is_the_user_id():
    assert reason(key=b"u2") is RejectReason.KEY_MISMATCH
    assert reason(key=b"") is RejectReason.KEY_MISMATCH
    assert isinstance(decode(user_id="zoë", key="zoë".encode()), DecodedPlay)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
changes = st.dictionaries(st.sampled_from(msgspec.structs.fields(Play)).map(lambda f: f.name), json_values)


@settings(max_examples=200, deadline=None)
@given(change=changes, key=st.none() | st.binary(max_size=4), cut=st.integers(0, 400))
def test_whatever_is_sent_is_a_valid_play_or_has_a_reason(change, key, cut):
    whole = json.dumps(PLAY | change).encode()
    for value in (whole, whole[:cut]):
        play = decode_play(Record(value, key), MAX_FUTURE_MS)
        if isinstance(play, RejectedPlay):
            assert play.reason in RejectReason
            continue
        assert 0 <= play.ts_ms <= NOW_MS + MAX_FUTURE_MS
        assert all(0 < len(text.encode()) <= 256 for text in (play.event_id, play.user_id, play.item_id))


@settings(max_examples=200, deadline=None)
@given(value=st.binary(max_size=200))
def test_any_bytes_are_answered(value):
    assert isinstance(decode_play(Record(value), MAX_FUTURE_MS), DecodedPlay | RejectedPlay)


@given(ts_ms=st.integers(0, 4_102_444_799_999))
def test_times_of_outputs_are_exact_to_the_millisecond(ts_ms):
    assert parse_time(iso_time(ts_ms)) == ts_ms
    assert len(iso_time(ts_ms)) == 24


def test_our_own_plays_are_decoded_as_they_were_encoded():
    sent = Play("e1", "u1", "i1", NOW_MS, "watch", 2.5, None, {"device": "tv"})
    assert decode_play(Record(encode(sent)), 0).attributes == {"device": "tv", "action": "watch"}
    assert b"session_id" not in encode(sent)


def recommendation(**fields):
    return Recommendation(
        user_id="u1",
        session_id="s1",
        event_id="e1",
        event_time=iso_time(NOW_MS),
        bundle="b0123456789ab",
        source=Source("plays", 0, 7),
        items=[RecommendedItem("i1", 'A "title" }', 1.5)],
        **fields,
    )


def test_latency_is_added_at_publication():
    value = encode_output(recommendation())
    assert codec.decode_recommendation(value) == recommendation(latency_s=0.0)
    for latency_s, published in ((0.0123456, 0.012346), (-0.5, -0.5), (86_400.0, 86_400.0)):
        stamped = with_latency(value, latency_s)
        assert codec.decode_recommendation(stamped) == recommendation(latency_s=published)
    with pytest.raises(ValueError, match="latency_s"):
        encode_output(recommendation(latency_s=0.1))
    for latency_s in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="latency_s"):
            with_latency(value, latency_s)


def test_announcements_are_checked():
    sent = Announcement(
        sequence=3, bundle="b0123456789ab", url="/bundles", created_at=iso_time(NOW_MS), reason="rollback"
    )
    assert codec.decode_announcement(encode(sent)) == sent
    for change in ({"sequence": 0}, {"bundle": ""}, {"url": None}):
        with pytest.raises(msgspec.ValidationError):
            codec.decode_announcement(json.dumps(json.loads(encode(sent)) | change).encode())
