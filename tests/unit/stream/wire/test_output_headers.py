"""Subscribers filter and trace by headers alone, as CloudEvents and Trace Context define them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.wire.output_headers import Headers, OutputHeaders, trace_context
from tests.worlds.bundle_world import Record

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLAY = Record(41, b"{}", b"u7", 3)
TIME = "2026-03-01T20:15:00.000Z"


def headers_of(record: Record = PLAY, user_id: str = "u7", shifted: bool = False) -> tuple[Headers, Headers]:
    return OutputHeaders("/intentrec/app").of(record, user_id, TIME, shifted)


def test_a_message_is_a_cloud_event_in_binary_content_mode() -> None:
    recommendation, intent_update = headers_of()
    assert dict(recommendation) == {
        "intentrec-id": b"plays-3-41-recommendation",
        "ce_id": b"plays-3-41-recommendation",
        "ce_time": TIME.encode(),
        "ce_subject": b"u7",
        "ce_specversion": b"1.0",
        "ce_type": b"intentrec.recommendation",
        "ce_source": b"/intentrec/app",
        "content-type": b"application/json",
    }
    assert dict(intent_update) == dict(recommendation) | {
        "intentrec-id": b"plays-3-41-intent",
        "intentrec-shifted": b"false",
        "ce_id": b"plays-3-41-intent",
        "ce_type": b"intentrec.intent",
    }
    for headers in (recommendation, intent_update):
        assert headers[0][0] == "intentrec-id"
        assert len(dict(headers)) == len(headers), "no header twice"


def test_a_shift_is_a_header_of_the_intent_update_alone() -> None:
    recommendation, intent_update = headers_of(shifted=True)
    assert dict(intent_update)["intentrec-shifted"] == b"true"
    assert "intentrec-shifted" not in dict(recommendation)


@pytest.mark.parametrize(
    ("user_id", "is_text"),
    [("ü😀", True), ("a b\u00a0", True), ("a\tb", False), ("\x9f", False), ("\ufdd0", False), ("\U0001ffff", False)],
    ids=ascii,
)
def test_a_subject_is_a_text_as_cloud_events_defines_one_or_is_not_there(user_id: str, is_text: bool) -> None:
    for headers in headers_of(user_id=user_id):
        assert dict(headers).get("ce_subject") == (user_id.encode() if is_text else None)


def traced(*headers: tuple[str, bytes]) -> Record:
    return replace(PLAY, headers=headers)


def test_the_trace_context_of_a_play_is_carried_to_both_messages() -> None:
    state = b"vendor=1,other=2"
    for headers in headers_of(traced(("x", b"y"), ("tracestate", state), ("traceparent", PARENT))):
        assert dict(headers)["traceparent"] == PARENT
        assert dict(headers)["tracestate"] == state
        assert "x" not in dict(headers)


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + b"-more",
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
        b"01" + PARENT[2:] + b"-" + b"m" * 100,
    ],
    ids=repr,
)
def test_a_trace_parent_that_is_none_is_not_carried(parent: bytes) -> None:
    assert trace_context([("traceparent", parent), ("tracestate", b"a=1")]) == ()


def test_a_trace_parent_of_a_later_version_is_carried_and_two_are_not() -> None:
    later = b"01" + PARENT[2:] + b"-more"
    assert trace_context([("traceparent", later)]) == (("traceparent", later),)
    assert trace_context([("traceparent", PARENT)] * 2) == ()


def test_states_are_joined_and_dropped_where_they_are_too_long_or_no_text() -> None:
    def state(*contents: bytes) -> bytes | None:
        return dict(trace_context([("traceparent", PARENT), *(("tracestate", c) for c in contents)])).get("tracestate")

    assert state(b"a=1", b"b=2") == b"a=1,b=2"
    assert state(b"a" * 512) == b"a" * 512
    assert state(b"a" * 513) is None
    assert state(b"a=\xff") is None
    assert state(b"") is None


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), st.none() | st.binary(max_size=600))))
def test_no_header_of_a_producer_fails_a_message(headers: list[tuple[str, bytes]]) -> None:
    assert sum(len(content) for _, content in trace_context(headers)) <= 640
