"""The messages on the topics: what producers send, what subscribers get, what the trainer announces.

These types are the contract. The published schemas (``deploy/contracts``) are generated from them, so a field's limits
and meaning stand here once. A message is only ever extended by optional fields; readers ignore fields they do not know.

Nothing here parses, checks a clock or knows Kafka: bytes are :mod:`stream.wire.codec`'s.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

PLAY_SCHEMA_VERSION = 1

#: Of every id, in UTF-8 bytes: ids are keys and are written once per play, so a runaway one costs every consumer.
MAX_ID_LENGTH = 256
#: 366 days. Longer is a producer that sends milliseconds, or an end time, as a duration.
MAX_DURATION_S = 31_622_400.0
#: 2100-01-01, excluded. Epoch microseconds (16 digits) are far above it and are refused rather than believed.
MAX_TS_MS = 4_102_444_800_000
#: What a 32-bit float can hold: numbers of the context are kept so in the member's history.
MAX_NUMBER = 3.4e38
#: What every JSON reader can hold.
MAX_INTEGER = 2**53
MAX_TEXT_LENGTH = 1024

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH, description="At most 256 bytes of UTF-8.")]
IsoTime = Annotated[str, Meta(description="ISO 8601, UTC, milliseconds.", examples=["2026-03-01T20:15:00.000Z"])]
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
LatencySeconds = Annotated[
    float, Meta(description="Seconds from the timestamp of the play's Kafka record to publication of this message.")
]


class Play(Struct, frozen=True, omit_defaults=True, gc=False):
    """One member played one item. The record's key is user_id in UTF-8, its partition the murmur2 of that key."""

    event_id: Annotated[Id, Meta(description="Names this play; a repeated one changes nothing.")]
    user_id: Id
    item_id: Id
    ts: Annotated[
        Annotated[int, Meta(ge=0, lt=MAX_TS_MS)] | Annotated[str, Meta(min_length=10, max_length=64)],
        Meta(
            description="When it was played: milliseconds since 1970 (UTC), or ISO 8601 (without an offset: UTC). "
            "From 1970 to 2100, and not later than the Kafka record's timestamp but for a small tolerance.",
            examples=[1_772_396_100_000, "2026-03-01T20:15:00.000Z"],
        ),
    ]
    action: Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)] | None = None
    duration_s: Annotated[float, Meta(ge=0.0, le=MAX_DURATION_S, description="Seconds played.")] | None = None
    session_id: (
        Annotated[Id, Meta(description="The producer's; sessions are derived from gaps in event time.")] | None
    ) = None
    context: (
        Annotated[
            dict[Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)], Text | Number | Integer | bool],
            Meta(max_length=64, description="Further values by name; the domain file says which ones are read."),
        ]
        | None
    ) = None
    schema_version: Annotated[int, Meta(description="1; any other is set aside.", examples=[1])] = PLAY_SCHEMA_VERSION


class Source(Struct, frozen=True, gc=False):
    """The play's place in the log. Subscribers keep the highest offset per user and drop lower or repeated ones."""

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class Coalesced(Struct, frozen=True, gc=False):
    """The plays of this member that this message answers together: an overloaded worker answers the last one only."""

    plays: Annotated[int, Meta(ge=2, description="How many, the one answered included.")]
    first_offset: Annotated[
        int, Meta(ge=0, description="The first one's; of this member, no play from here to source.offset is owed more.")
    ]


class RecommendedItem(Struct, frozen=True, gc=False):
    """One item of a list, best first."""

    item_id: str
    title: str
    score: Annotated[float, Meta(description="Comparable within one list only.")]


class Recommendation(Struct, frozen=True, kw_only=True, gc=False):
    """What to show this member after this play. The record's key is user_id in UTF-8."""

    user_id: str
    session_id: str
    event_id: Annotated[str, Meta(description="The play this answers.")]
    event_time: IsoTime
    bundle: Annotated[str, Meta(description="Version of weights, vocabulary and index that made the list.")]
    source: Source
    items: list[RecommendedItem]
    fallback: Annotated[
        Literal["none", "popular"], Meta(description="popular: nothing known of the member could be encoded.")
    ] = "none"
    coalesced: Annotated[Coalesced | UnsetType, Meta(description="Absent: the one play is answered.")] = UNSET
    latency_s: LatencySeconds | UnsetType = UNSET


class PrimaryIntent(Struct, frozen=True, gc=False):
    """The most likely label of the head that weighs most."""

    head: str
    label: str
    probability: Probability


class IntentUpdate(Struct, frozen=True, kw_only=True, gc=False):
    """What this member is up to after this play. The record's key is user_id in UTF-8."""

    user_id: str
    session_id: str
    session_opened: Annotated[bool, Meta(description="This play, or one it is coalesced with, opened the session.")]
    event_id: Annotated[str, Meta(description="The play this answers.")]
    event_time: IsoTime
    bundle: Annotated[str, Meta(description="Version of the weights that predicted it.")]
    source: Source
    intents: Annotated[
        dict[str, dict[str, Probability]], Meta(description="By head, the probability of each label for the next play.")
    ]
    weights: Annotated[dict[str, Probability], Meta(description="By head, how much it matters now; they sum to 1.")]
    primary: PrimaryIntent | None
    shifted: Annotated[
        bool,
        Meta(
            description="The primary intent is another one than after the play before this one and those coalesced with it."
        ),
    ]
    coalesced: Annotated[Coalesced | UnsetType, Meta(description="Absent: the one play is answered.")] = UNSET
    latency_s: LatencySeconds | UnsetType = UNSET


class Announcement(Struct, frozen=True, kw_only=True, gc=False):
    """A bundle to be served from now on. One key on a compacted topic, so that a new worker reads the last one only."""

    sequence: Annotated[int, Meta(ge=1, description="Rises; a lower one is refused. A rollback is a new number.")]
    bundle: Annotated[str, Meta(min_length=1, description="Version of the bundle.")]
    url: Annotated[str, Meta(min_length=1, description="fsspec URL of the store that holds it.")]
    parent: Annotated[str | None, Meta(description="The bundle it was trained from.")] = None
    created_at: IsoTime
    reason: Annotated[str, Meta(description="trained, rollback, or an operator's words.")] = "trained"
