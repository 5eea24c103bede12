"""One example of each message, in the published contract: whole, valid, and written by the code that writes the real ones."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec

from stream.wire.codec import encode, encode_output, with_latency
from stream.wire.messages import (
    Announcement,
    CatalogueItem,
    ClosedSession,
    IntentLabel,
    IntentUpdate,
    ItemCountsHead,
    PageRow,
    Play,
    PrimaryIntent,
    Reason,
    Recommendation,
    RecommendedItem,
    RowItem,
    Source,
)
from stream.wire.output_headers import OutputHeaders

_TIME, _TIME_MS, _BUNDLE = "2026-03-01T20:15:00.000Z", 1_772_396_100_000, "b0123456789ab"
_SHARED: dict[str, Any] = {
    "user_id": "u7",
    "session_id": "8a6f0c2d4be19375",
    "event_id": "e41",
    "event_time": _TIME,
    "bundle": _BUNDLE,
    "source": Source("plays", 3, 41),
    "catalogue_offset": 1208,
}


class _AnsweredPlay(msgspec.Struct):
    """The record of the play that the outputs answer."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


PLAY = Play(
    "e41", "u7", "m42", _TIME, "watch", 1520.5, context={"device": "tv", "region": "de", "max_maturity": 4, "rating": 5}
)
RECOMMENDATION = Recommendation(
    **_SHARED,
    items=[
        RecommendedItem("m7", "Heat (1995)", 3.25, Reason("intent", "genre", "Crime")),
        RecommendedItem("m19", "Ronin (1998)", 2.5, Reason("because_of", item_id="m42", title="The Insider (1999)")),
    ],
    counts_sequence=812,
    recommendation_id=f"3-41-{_BUNDLE}",
    rows=[
        PageRow(
            kind="intent",
            title="Because you are in the mood for Crime",
            weight=0.46875,
            items=[RowItem("m7", "Heat (1995)"), RowItem("m19", "Ronin (1998)"), RowItem("m8", "Fargo (1996)")],
            head="genre",
            label="Crime",
        )
    ],
    query=struct.pack("<6f", 0.5, -1.25, 0.75, 1.0, 0.25, -0.125),
    filter_values={"max_maturity": 4.0},
)
INTENT_UPDATE = IntentUpdate(
    **_SHARED,
    session_opened=True,
    intents={"genre": {"Crime": 0.75, "Comedy": 0.25}, "action": {"watch": 0.875, "trailer": 0.125}},
    weights={"genre": 0.625, "action": 0.375},
    primary=PrimaryIntent("genre", "Crime", 0.75),
    shifted=False,
    closed_session=ClosedSession("1f2e3d4c5b6a7988", 5400.25, 12, IntentLabel("genre", "Comedy")),
    embedding=struct.pack("<2f", -0.5, 0.75),
)
ANNOUNCEMENT = Announcement(
    sequence=7, bundle=_BUNDLE, url="s3://models/intentrec", parent="b00000000abcd", created_at=_TIME
)
ITEM = CatalogueItem(
    item_id="m42", title="Heat (1995)", attributes={"genres": ["Crime"], "year": 1995}, written_by="file"
)
ITEM_COUNTS_HEAD = ItemCountsHead(
    sequence=812,
    event_time_ms=_TIME_MS,
    offsets={"0": 40, "3": 42},
    decays_s=[3600.0, 604_800.0],
    num_items=1,
    blocks=["0123456789abcdef"],
    written_at=_TIME,
)
PLAY_HEADERS = (
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", b"vendor=00f067aa0ba902b7"),
)


def example_values() -> dict[str, Any]:
    """The value of each message, by its name in the contract, as JSON."""
    values = {
        "play": encode(PLAY),
        "recommendation": with_latency(encode_output(RECOMMENDATION), 0.0385),
        "intent-update": with_latency(encode_output(INTENT_UPDATE), 0.0385),
        "announcement": encode(ANNOUNCEMENT),
        "item": encode(ITEM),
        "item-counts-head": encode(ITEM_COUNTS_HEAD),
    }
    return {name: json.loads(value) for name, value in values.items()}


def example_headers() -> dict[str, dict[str, str]]:
    """The headers of the messages that have some, by the message's name in the contract."""
    play = _AnsweredPlay("plays", 3, 41, _TIME_MS, b"u7", encode(PLAY), PLAY_HEADERS)
    outputs = OutputHeaders("/intentrec/intentrec").of(play, "u7", _TIME, shifted=False)
    all_headers = dict(zip(("play", "recommendation", "intent-update"), (PLAY_HEADERS, *outputs), strict=True))
    return {name: {key: content.decode() for key, content in headers} for name, headers in all_headers.items()}
