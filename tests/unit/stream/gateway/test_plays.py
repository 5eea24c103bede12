"""Plays are checked as a worker checks them, with the domain's own limits and what its histories hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import RejectReason
from stream.gateway.plays import PlayCheck
from stream.wire.codec import RejectedPlay, decode_play
from tests.worlds.bundle_world import Record
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

NOW_MS = START_MS + 1_000_000


def play(**fields: Any) -> bytes:
    document = {"event_id": "e", "user_id": "ü", "item_id": "i", "ts": START_MS, "context": {"max_maturity": 4}}
    return json.dumps(document | fields).encode()


@pytest.mark.parametrize(
    "value",
    [
        play(),
        play(ts=1),
        play(ts=NOW_MS + 10**9),
        play(item_id=""),
        play(schema_version=2),
        b"",
        b"{",
        play(duration_s=-1),
    ],
)
def test_the_verdict_is_that_of_the_workers_codec(world: TinyWorld, value: bytes) -> None:
    domain = parse_domain(DOMAIN.format(window=world.window), "tiny.toml")
    record = Record(0, value, timestamp=NOW_MS)
    assert PlayCheck(domain).check(value, NOW_MS) == decode_play(record, domain.earliest_ms, domain.max_future_ms)


def test_a_number_that_a_history_cannot_hold_is_refused(world: TinyWorld) -> None:
    """As folding refuses it, after the codec has taken it."""
    domain = parse_domain(DOMAIN.format(window=world.window), "tiny.toml")
    found = PlayCheck(domain).check(play(context={"max_maturity": "many"}), NOW_MS)
    assert isinstance(found, RejectedPlay)
    assert found.reason is RejectReason.INVALID_FIELD
