"""Bytes to plays: a play is valid or has a reason; nothing raises."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.errors import RejectReason
from intentrec_core.times import EARLIEST_MS, iso_time
from stream.wire import codec
from stream.wire.codec import (
    DecodedPlay,
    RejectedPlay,
    decode_play,
    encode,
    encode_output,
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
    return decode_play(Record(value, key, timestamp), EARLIEST_MS, MAX_FUTURE_MS)


def reason(change=None, /, **keywords):
    play = decode(change, **keywords)
    assert isinstance(play, RejectedPlay)
    assert play.detail
    assert len(play.detail) <= 200
    assert "\n" not in play.detail
    return play.reason


def reason_of(value):
    play = decode_play(Record(value), EARLIEST_MS, MAX_FUTURE_MS)
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
        ("2026-03-01t20:15:00z", NOW_MS),
        ("2026-02-28T24:00", NOW_MS - 72_900_000),
        ("1772396100000", NOW_MS),  # in digits
        ("1772396100000.0", NOW_MS),
        ("+1772396100000.000", NOW_MS),
        ("2016-12-31T23:59:60.5Z", 1_483_228_800_500),
        ("1990-01-01", EARLIEST_MS),
    ],
)
def test_times_as_texts(text, ts_ms):
    assert decode(ts=text).ts_ms == ts_ms


AS_SECONDS = "1970-01-21T12:19:56.100Z; allowed: 1990-01-01 up to 2026-03-01T20:20:00.001Z; it would fit in seconds (s)"


@pytest.mark.parametrize(
    ("ts", "rejected", "detail"),
    [
        (1_772_396_100, RejectReason.OUT_OF_RANGE, f"ts is 1772396100, in milliseconds {AS_SECONDS}"),
        ("1772396100", RejectReason.OUT_OF_RANGE, f"ts is '1772396100', in milliseconds {AS_SECONDS}"),
        (NOW_MS * 10**3, RejectReason.OUT_OF_RANGE, "it would fit in microseconds (µs)"),
        (NOW_MS * 10**6, RejectReason.OUT_OF_RANGE, "it would fit in nanoseconds (ns)"),
        (str(NOW_MS * 10**6), RejectReason.OUT_OF_RANGE, "it would fit in nanoseconds (ns)"),
        (1_772_396_100.5, RejectReason.INVALID_FIELD, "milliseconds since 1970; it would fit in seconds (s)"),
        ("1772396100.5", RejectReason.INVALID_FIELD, "in digits; it would fit in seconds (s)"),
        (1_772_396_100.0, RejectReason.OUT_OF_RANGE, f"ts is 1772396100.0, in milliseconds {AS_SECONDS}"),
        ("1772396100.0", RejectReason.OUT_OF_RANGE, f"ts is '1772396100.0', in milliseconds {AS_SECONDS}"),
        (NOW_MS * 1e3, RejectReason.OUT_OF_RANGE, "it would fit in microseconds (µs)"),
        (-1.0, RejectReason.OUT_OF_RANGE, "ts is -1.0, in milliseconds 1969-12-31T23:59:59.999Z; allowed: 1990-01-01"),
        ("20260301", RejectReason.OUT_OF_RANGE, "it would fit as YYYYMMDD: write 2026-03-01"),
        ("177239610", RejectReason.OUT_OF_RANGE, "ts is '177239610', in milliseconds 1970-01-03"),
        ("", RejectReason.INVALID_FIELD, "ts '' cannot be read; allowed: ISO 8601"),
        ("soon", RejectReason.INVALID_FIELD, "ts 'soon' cannot be read; allowed: ISO 8601"),
        ("0" * 65, RejectReason.INVALID_FIELD, "ts has 65 characters; allowed: 1 to 64"),
        (EARLIEST_MS - 1, RejectReason.OUT_OF_RANGE, "1989-12-31T23:59:59.999Z; allowed: 1990-01-01 up to"),
        (5, RejectReason.OUT_OF_RANGE, "allowed: 1990-01-01 up to"),
        (NOW_MS * 10**9, RejectReason.OUT_OF_RANGE, "after year 9999; allowed: 1990-01-01 up to"),
        (10**400, RejectReason.OUT_OF_RANGE, "after year 9999; allowed: 1990-01-01 up to"),
        ("1989-12-31T24:00:00.001", RejectReason.INVALID_FIELD, "cannot be read; allowed: ISO 8601"),
        ("2026-03-01T20:14:60", RejectReason.INVALID_FIELD, "a leap second only"),
        ("yesterday or so", RejectReason.INVALID_FIELD, "cannot be read; allowed: ISO 8601"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_time_in_another_unit_is_refused_with_the_unit_that_would_fit(ts, rejected, detail):
    play = decode(ts=ts)
    assert play.reason is rejected
    assert detail in play.detail
    assert len(play.detail) <= 200


@pytest.mark.parametrize("ts", [float(NOW_MS), f"{NOW_MS}.0"])
def test_a_whole_number_with_a_point_is_a_whole_number(ts):
    """A producer that keeps its times in 64 bits with a point writes them so; stored plays may have it too."""
    play = decode(ts=ts)
    assert (play.ts_ms, type(play.ts_ms)) == (NOW_MS, int)


@pytest.mark.parametrize("ts", [NOW_MS + 0.5, f"{NOW_MS}.5"])
def test_a_fraction_of_a_millisecond_is_refused_without_a_unit_that_it_is_in(ts):
    assert (reason(ts=ts), "it would fit" in decode(ts=ts).detail) == (RejectReason.INVALID_FIELD, False)


@pytest.mark.parametrize(("factor", "unit"), [(10**3, "microseconds (µs)"), (10**6, "nanoseconds (ns)")])
@pytest.mark.parametrize("ts", [NOW_MS, NOW_MS + 200 * 86_400_000])
def test_a_record_whose_own_timestamp_is_in_a_finer_unit_bounds_nothing_and_is_refused(ts, factor, unit):
    play = decode(ts=ts, timestamp=NOW_MS * factor)
    assert play.reason is RejectReason.OUT_OF_RANGE
    assert play.detail.startswith(f"the timestamp of the record is {NOW_MS * factor}, in milliseconds ")
    assert play.detail.endswith(f"allowed: 1990-01-01 up to 2100-01-01; it would fit in {unit}")


def test_a_record_of_2099_is_one():
    assert decode(timestamp=4_102_444_799_999).ts_ms == NOW_MS
    assert decode(ts=4_102_444_799_999, timestamp=4_102_444_799_999).ts_ms == 4_102_444_799_999
    assert reason(timestamp=4_102_444_800_000) is RejectReason.OUT_OF_RANGE


def test_a_record_whose_own_timestamp_is_in_seconds_is_told_so():
    play = decode(timestamp=NOW_MS // 1000)
    assert play.reason is RejectReason.FUTURE
    assert "the timestamp of the record is 1772396100, in milliseconds 1970-01-21" in play.detail


@pytest.mark.parametrize("timestamp", [0, -1])
def test_without_a_timestamp_of_the_record_2100_is_the_limit(timestamp):
    assert decode(ts=4_102_444_799_999, timestamp=timestamp).ts_ms == 4_102_444_799_999
    play = decode(ts=4_102_444_800_000, timestamp=timestamp)
    assert (play.reason, "up to 2100-01-01" in play.detail) == (RejectReason.OUT_OF_RANGE, True)
    assert "fit in microseconds (µs)" in decode(ts=NOW_MS * 1000, timestamp=timestamp).detail


def test_null_is_missing():
    play = decode(action=None, duration_s=None, session_id=None, schema_version=None, context={"device": None, "n": 1})
    assert play == DecodedPlay("e1", "u1", "i1", NOW_MS, None, None, {"device": None, "n": 1})


@pytest.mark.parametrize(
    ("context", "detail"),
    [
        ({"a": 1, "device": {}}, "context['device']: Expected `bool | int | float | str | null`, got `object`"),
        ({"a": 1, "genres": ["x"]}, "context['genres']: Expected"),
        ({"title": "y" * 1025}, "context['title']: Expected `str` of length <= 1024"),
        ({"a": 1, "limit": 2**53 + 1}, "context['limit']: Expected `int` <= 9007199254740992"),
        ({"a": 1, "limit": 10**400}, "context['limit']: "),
        ({"": 1}, "context has a key of 0 characters ('')"),
        ({"k" * 257: 1}, "context has a key of 257 characters"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_context_that_is_refused_names_its_key(context, detail):
    assert detail in decode(context=context).detail


@pytest.mark.parametrize("num_nulls", [0, 1, 1000])
def test_of_a_context_the_entries_that_are_not_null_are_counted(num_nulls):
    """A producer that writes every key it knows is not refused for those without a value."""
    nulls = {f"n{number}": None for number in range(num_nulls)}
    given_64 = {f"k{number}": number for number in range(64)}
    play = decode(context=nulls | given_64, action="watch")
    assert {key: value for key, value in play.attributes.items() if value is not None} == given_64 | {"action": "watch"}
    play = decode(context=nulls | given_64 | {"one more": 0})
    assert play == RejectedPlay(
        RejectReason.INVALID_FIELD, "context has 65 entries that are not null; allowed: at most 64"
    )


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
    play = decode_play(Record(value), EARLIEST_MS, MAX_FUTURE_MS)
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
        {"ts": 0},
        {"ts": "1989-12-31T23:59:59Z"},
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
        {"ts": "17723961O"},
        {"ts": 1.5},
        {"ts": True},
        {"duration_s": "12"},
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
    assert isinstance(decode(ts=EARLIEST_MS), DecodedPlay)


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
        play = decode_play(Record(value, key), EARLIEST_MS, MAX_FUTURE_MS)
        if isinstance(play, RejectedPlay):
            assert play.reason in RejectReason
            continue
        assert EARLIEST_MS <= play.ts_ms <= NOW_MS + MAX_FUTURE_MS
        assert all(0 < len(text.encode()) <= 256 for text in (play.event_id, play.user_id, play.item_id))


@settings(max_examples=200, deadline=None)
@given(value=st.binary(max_size=200))
def test_any_bytes_are_answered(value):
    assert isinstance(decode_play(Record(value), EARLIEST_MS, MAX_FUTURE_MS), DecodedPlay | RejectedPlay)


def test_our_own_plays_are_decoded_as_they_were_encoded():
    sent = Play("e1", "u1", "i1", NOW_MS, "watch", 2.5, None, {"device": "tv"})
    assert decode_play(Record(encode(sent)), EARLIEST_MS, 0).attributes == {"device": "tv", "action": "watch"}
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


@pytest.mark.parametrize(
    ("last", "place"),
    [
        (r'"context": {"device": "\ud83d"}', "context['device']"),
        (r'"context": {"a": "x", "\ud83d": 1}', r"context['\ud83d']"),
        (r'"context": {"\ud83d": 1}', r"context['\ud83d']"),
        (r'"user_id": "\ud83d"', "user_id"),
        (r'"user_id": "\ud83d", "action": "of some length"', "user_id"),
        (r'"\ud83d": 1', r"\ud83d"),
    ],
)
def test_half_of_a_pair_is_named_wherever_it_stands_and_no_play_is_said_to_be_truncated(last: str, place: str) -> None:
    value = f'{{"event_id": "e1", "item_id": "i1", "ts": {NOW_MS}, {last}}}'.encode()
    play = decode_play(Record(value), EARLIEST_MS, MAX_FUTURE_MS)
    assert play == RejectedPlay(
        RejectReason.MALFORMED, f"{place}: half of a surrogate pair, which is no UTF-8; allowed: texts in UTF-8"
    )


@pytest.mark.parametrize("value", [b'{"event_id": "\\ud83d', b'{"event_id": "e1', b'{"context": {"device": "\\ud83d"}'])
def test_a_play_that_is_cut_off_is_said_to_be(value: bytes) -> None:
    assert decode_play(Record(value), EARLIEST_MS, MAX_FUTURE_MS) == RejectedPlay(
        RejectReason.MALFORMED, "Input data was truncated"
    )
