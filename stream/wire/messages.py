"""The messages on the Kafka topics: plays in, recommendations and intent updates out, bundle announcements to workers.

These types are the public contract. The published schemas (``deploy/contracts``) are generated from them, so the meaning of
each field is written here once; limits that tables and the library share are in :mod:`intentrec_core.limits`. A message only ever
gains optional fields; readers ignore unknown fields.

This module does no parsing, checks no clock and does not know Kafka. :mod:`stream.wire.codec` turns messages into bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from intentrec_core.limits import MAX_CONTEXT_ENTRIES, MAX_DURATION_S, MAX_ID_BYTES, MAX_NAME_LENGTH, MAX_TEXT_LENGTH
from intentrec_core.times import END_MS

PLAY_SCHEMA_VERSION = 1

#: 2100-01-01, excluded. Epoch microseconds (16 digits) are far above it, so they are refused and not misread.
MAX_TS_MS = END_MS
#: Of a time that is a text, in characters.
MAX_TIME_LENGTH = 64
#: Range of a 32-bit float: the member's history stores numbers of the context in 32 bits.
MAX_NUMBER = 3.4e38
#: Largest integer that every JSON reader represents exactly.
MAX_INTEGER = 2**53

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES, description="At most 256 bytes of UTF-8.")]
IsoTime = Annotated[str, Meta(description="ISO 8601 in UTC with milliseconds.", examples=["2026-03-01T20:15:00.000Z"])]
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
ContextValue = Text | Number | Integer | bool | None
LatencySeconds = Annotated[
    float, Meta(description="Seconds from the timestamp of the play's Kafka record to the publication of this message.")
]


class Play(Struct, frozen=True, omit_defaults=True, gc=False):
    """A member played an item. The record's key is user_id in UTF-8; its partition is the murmur2 hash of the key."""

    event_id: Annotated[Id, Meta(description="Identifies this play; the same play sent again changes nothing.")]
    user_id: Annotated[Id, Meta(description="The member who played the item. At most 256 bytes of UTF-8.")]
    item_id: Annotated[Id, Meta(description="The item that was played. At most 256 bytes of UTF-8.")]
    ts: Annotated[
        Annotated[int, Meta(ge=0, lt=MAX_TS_MS)]
        | Annotated[float, Meta(ge=0.0, lt=MAX_TS_MS, multiple_of=1.0)]
        | Annotated[str, Meta(min_length=1, max_length=MAX_TIME_LENGTH)],
        Meta(
            description="When the item was played: whole milliseconds since 1970 (UTC), also as a text of digits, or ISO 8601 "
            "(UTC if it has no offset). Not before the domain's earliest (1990-01-01 unless it says otherwise), before 2100, and "
            "at most a small tolerance later than the timestamp of the Kafka record.",
            examples=[1_772_396_100_000, "2026-03-01T20:15:00.000Z"],
        ),
    ]
    action: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_NAME_LENGTH,
                description="What the member did, for example watch; the domain file says which actions are used.",
            ),
        ]
        | None
    ) = None
    duration_s: Annotated[float, Meta(ge=0.0, le=MAX_DURATION_S, description="Seconds played.")] | None = None
    session_id: (
        Annotated[
            Id,
            Meta(
                description="The producer's session id; not used, because sessions are derived from gaps in event time."
            ),
        ]
        | None
    ) = None
    context: (
        Annotated[
            dict[Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH)], ContextValue],
            Meta(
                description=f"Further values by name, at most {MAX_CONTEXT_ENTRIES} that are not null; null is missing. "
                "The domain file says which of them are used.",
            ),
        ]
        | None
    ) = None
    schema_version: Annotated[
        int | None, Meta(description="1; a play with another version goes to the dead letters.", examples=[1])
    ] = PLAY_SCHEMA_VERSION


class Source(Struct, frozen=True, gc=False):
    """Position of the play. Outputs can be repeated: per topic and user, keep the highest offset, drop lower and equal ones."""

    topic: Annotated[str, Meta(description="The plays topic.")]
    partition: Annotated[int, Meta(ge=0, description="Partition of the plays topic.")]
    offset: Annotated[int, Meta(ge=0, description="Offset in that partition.")]


class Coalesced(Struct, frozen=True, gc=False):
    """Several plays of this member that this one message answers. An overloaded worker answers only the last of them."""

    plays: Annotated[int, Meta(ge=2, description="Number of plays answered, including the play in event_id.")]
    first_offset: Annotated[
        int,
        Meta(
            ge=0,
            description="Offset of the first of these plays. "
            "Every play of this user from here to source.offset is answered by this message.",
        ),
    ]


SessionId = Annotated[str, Meta(description="The member's session, which IntentRec derives from gaps in event time.")]
AnsweredEventId = Annotated[str, Meta(description="event_id of the play that this message answers.")]
EventTime = Annotated[IsoTime, Meta(description="ts of that play: ISO 8601 in UTC with milliseconds.")]
AnsweredTogether = Annotated[
    Coalesced,
    Meta(description="Present if this message answers several plays of this member, absent if it answers one."),
]

CatalogueOffset = Annotated[
    int,
    Meta(
        ge=0,
        description="Offset of the newest record of the items topic that this message knows of: no item that was withdrawn "
        "at or before it is in the list. Absent if the worker does not follow the topic, or the topic is empty.",
    ),
]


CountsSequence = Annotated[
    int,
    Meta(
        ge=1,
        description="Sequence number of the table of the item-counts topic that this list was made with. Absent if it was made "
        "without one.",
    ),
]


Vector = Annotated[bytes, Meta(description="Base64 of 32-bit floats, little-endian.")]


class Reason(Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an item is recommended."""

    because: Annotated[
        str,
        Meta(
            description="continue: the member has played it. new: first played within the last 7 days. intent: what a predicted "
            "intent adds lifts its score most (head, label). popular: how popular it is lifts it most, or fallback is popular. "
            "because_of: what the member has played lifts it most; the nearest of the newest plays is named (item_id, "
            "title). More may be added."
        ),
    ]
    head: Annotated[str, Meta(description="Of intent: name of the intent head.")] | UnsetType = UNSET
    label: Annotated[str, Meta(description="Of intent: the label that adds most.")] | UnsetType = UNSET
    item_id: Annotated[str, Meta(description="Of because_of: the item that the member has played.")] | UnsetType = UNSET
    title: Annotated[str, Meta(description="Of because_of: the title of that item, for display.")] | UnsetType = UNSET


class RecommendedItem(Struct, frozen=True, gc=False):
    """One item of a recommendation."""

    item_id: str
    title: Annotated[
        str, Meta(description="Title of the item, for display; at most 1,024 characters, … ends a cut one.")
    ]
    score: Annotated[float, Meta(description="Higher is better; comparable only with scores in the same message.")]
    reason: (
        Annotated[
            Reason,
            Meta(
                description="Why this item is on the list. Absent without publish_reasons, and if the list would be too large."
            ),
        ]
        | UnsetType
    ) = UNSET


class RowItem(Struct, frozen=True, gc=False):
    """An item of a row."""

    item_id: str
    title: Annotated[str, Meta(description="Title of the item, for display.")]


class PageRow(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A row of the page to show this member, as the rows file of the workers declares it."""

    kind: Annotated[
        str, Meta(description="continue, intent, because_of, popular or new, as in the rows file. More may be added.")
    ]
    title: Annotated[str, Meta(description="Title of the row, for display: the rows file's template filled in.")]
    weight: Annotated[
        float,
        Meta(
            description="How much the row matters now: weight of its intent times probability of its label, or as declared."
        ),
    ]
    items: Annotated[list[RowItem], Meta(description="Best item first. No item is on a page twice.")]
    head: Annotated[str, Meta(description="Name of the intent head that the row follows.")] | UnsetType = UNSET
    label: Annotated[str, Meta(description="Label of this head that the row follows.")] | UnsetType = UNSET
    item_id: Annotated[str, Meta(description="Of because_of: the item that the member has played.")] | UnsetType = UNSET


class HiddenBy(Struct, frozen=True, gc=False):
    """A filter of the domain that hides every item from this member, alone or together with others."""

    filter: Annotated[str, Meta(description="Kind of the filter: available, at_most or contains. More may be added.")]
    key: Annotated[str, Meta(description="Attribute of the catalogue that the filter compares.")]
    reason: Annotated[
        str,
        Meta(
            description="member_unknown: no play of the member names the value that the filter needs (value), and the domain has "
            "no default for it. no_item: no item passes this filter. together: each filter lets items pass, but no item "
            "passes all of them. More may be added."
        ),
    ]
    value: Annotated[
        str | UnsetType,
        Meta(description="Key of play.context with the member's value; absent if the filter needs none."),
    ] = UNSET


class Recommendation(Struct, frozen=True, kw_only=True, gc=False):
    """The items to show this member after this play. The record's key is user_id in UTF-8."""

    user_id: str
    session_id: SessionId
    event_id: AnsweredEventId
    event_time: EventTime
    bundle: Annotated[
        str, Meta(description="Version of the bundle (weights, vocabulary, index) that ranked the items.")
    ]
    source: Source
    items: Annotated[list[RecommendedItem], Meta(description="Best item first.")]
    fallback: Annotated[
        Literal["none", "popular"],
        Meta(
            description="none: the items are predicted from the member's plays. "
            "popular: the bundle knows none of the member's recent items, so these are the items that are popular now."
        ),
    ] = "none"
    hidden_by: Annotated[
        list[HiddenBy] | UnsetType,
        Meta(
            description="Present only if items is empty because filters hide every item: these filters, with the reason."
        ),
    ] = UNSET
    coalesced: AnsweredTogether | UnsetType = UNSET
    catalogue_offset: CatalogueOffset | UnsetType = UNSET
    counts_sequence: CountsSequence | UnsetType = UNSET
    recommendation_id: (
        Annotated[
            str,
            Meta(
                description="Names this list: <partition>-<offset>-<bundle>; another bundle's list for the same play has another "
                "one. Keep it with what is shown, to attribute later plays to the list."
            ),
        ]
        | UnsetType
    ) = UNSET
    rows: (
        Annotated[
            list[PageRow],
            Meta(
                description="The rows of the member's page, first row first. Empty if no row has enough items. Absent without a "
                "rows file, and if the message would be too large."
            ),
        ]
        | UnsetType
    ) = UNSET
    query: (
        Annotated[
            Vector,
            Meta(
                description="The vector that the items were searched with: its inner product with an item's vector in the index "
                "of bundle is its score, up to what the member's own plays add. Base64 of 32-bit floats, little-endian: as "
                "many as the index has dimensions, and after them, where counts of plays are a part of the score, their weights. "
                "Absent without publish_embedding, and if fallback is popular."
            ),
        ]
        | UnsetType
    ) = UNSET
    filter_values: (
        Annotated[
            dict[str, float | str],
            Meta(
                description="What the domain's filters compare items with for this member, by the key of play.context: the "
                "newest number, or the xxh3-64 of the newest text as 16 hexadecimal digits; the domain's default where no play "
                "has named one. A key without either is left out: its filter hides every item. Present with query, if filters "
                "read values."
            ),
        ]
        | UnsetType
    ) = UNSET
    latency_s: LatencySeconds | UnsetType = UNSET


class PrimaryIntent(Struct, frozen=True, gc=False):
    """The most likely label of the intent head with the highest weight."""

    head: Annotated[str, Meta(description="Name of the intent head.")]
    label: Annotated[str, Meta(description="The most likely label of this head.")]
    probability: Probability


class IntentLabel(Struct, frozen=True, gc=False):
    """A label of an intent head."""

    head: Annotated[str, Meta(description="Name of the intent head.")]
    label: Annotated[str, Meta(description="A label of this head.")]


class ClosedSession(Struct, frozen=True, gc=False):
    """The member's session before the one that this play opened. A play that comes out of order later can still change it."""

    session_id: SessionId
    seconds: Annotated[float, Meta(ge=0.0, description="From its first to its last play, by event time.")]
    plays: (
        Annotated[
            int, Meta(ge=1, description="Number of its plays. Absent if the history no longer holds all of them.")
        ]
        | UnsetType
    ) = UNSET
    intent: (
        Annotated[
            IntentLabel,
            Meta(
                description="Its strongest intent: the primary intent after its last play. Absent if the bundle predicts no "
                "intents, if a play out of order opened the session after it, and if the names take more than 1,024 bytes."
            ),
        ]
        | UnsetType
    ) = UNSET


class IntentUpdate(Struct, frozen=True, kw_only=True, gc=False):
    """The intent predicted for this member after this play. The record's key is user_id in UTF-8."""

    user_id: str
    session_id: SessionId
    session_opened: Annotated[
        bool, Meta(description="Whether this play, or a play coalesced into this message, opened the session.")
    ]
    event_id: AnsweredEventId
    event_time: EventTime
    bundle: Annotated[str, Meta(description="Version of the bundle whose weights predicted the intent.")]
    source: Source
    intents: Annotated[
        dict[str, dict[str, Probability]],
        Meta(description="For each intent head, the probability of each label for the member's next play."),
    ]
    weights: Annotated[
        dict[str, Probability], Meta(description="For each intent head, how much it matters now; the weights sum to 1.")
    ]
    primary: Annotated[
        PrimaryIntent | None,
        Meta(
            description="The most likely label of the head with the highest weight, among the heads that were trained; null if "
            "the bundle predicts no intents."
        ),
    ]
    shifted: Annotated[
        bool,
        Meta(
            description="Whether the primary intent differs from the one before this play "
            "(if several plays are coalesced: before the first of them) in the same session. "
            "For an out-of-order play: whether the newest play of the history shifted it."
        ),
    ]
    coalesced: AnsweredTogether | UnsetType = UNSET
    catalogue_offset: CatalogueOffset | UnsetType = UNSET
    closed_session: (
        Annotated[
            ClosedSession,
            Meta(
                description="With session_opened: the member's session before it. Absent if there is none, or the history holds "
                "no play of it any more."
            ),
        ]
        | UnsetType
    ) = UNSET
    embedding: (
        Annotated[
            Vector,
            Meta(
                description="The intent embedding Z after this play, to be compared with embeddings of the same bundle only. "
                "Base64 of 32-bit floats, little-endian. Absent without publish_embedding, and if the bundle predicts no intents."
            ),
        ]
        | UnsetType
    ) = UNSET
    latency_s: LatencySeconds | UnsetType = UNSET


class Announcement(Struct, frozen=True, kw_only=True, gc=False):
    """The bundle to serve from now on. One key on a compacted topic, so a new worker reads only the last announcement."""

    sequence: Annotated[
        int,
        Meta(
            ge=1,
            description="Increases with every announcement, also with a rollback; workers refuse a number that is not higher.",
        ),
    ]
    bundle: Annotated[str, Meta(min_length=1, description="Version of the bundle.")]
    url: Annotated[str, Meta(min_length=1, description="fsspec URL of the store that holds the bundle.")]
    parent: Annotated[str | None, Meta(description="Version of the bundle from which it was trained, if any.")] = None
    created_at: Annotated[IsoTime, Meta(description="When it was announced: ISO 8601 in UTC with milliseconds.")]
    reason: Annotated[str, Meta(description="trained, rollback, or free text of an operator.")] = "trained"


class CatalogueItem(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An item of the catalogue, as it is from now on. The record's key is item_id in UTF-8; without a value, a record withdraws
    the item. The newest record of an item counts. A null is as if the field were not there.
    """

    item_id: Annotated[Id, Meta(description="The item_id of plays and recommendations. At most 256 bytes of UTF-8.")]
    title: Annotated[str | None, Meta(description="Title of the item, for display; default: its item_id.")] = ""
    attributes: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Values by name: texts, numbers, truth values and lists of texts. The domain file says which of them "
            "are used, for filters at once and for the model from the next bundle on. A null is a missing value."
        ),
    ] = {}
    written_by: Annotated[
        Literal["file", "hand"] | None,
        Meta(
            description="file: copied from a catalogue file, and withdrawn when the file no longer has it. hand: put or "
            "withdrawn by itself."
        ),
    ] = "hand"
    withdrawn: Annotated[
        bool | None,
        Meta(
            description="The item is withdrawn, as by a record without a value, and stays so although a catalogue file has it."
        ),
    ] = False
    file_row: Annotated[
        str | None,
        Meta(
            description="Of an item put by hand: a digest of its row in the catalogue file as it was then; empty if it had none. "
            "While the row stays so, the item stays as it was put. Absent: the next copy of a file writes it."
        ),
    ] = None


class ItemCountsHead(Struct, frozen=True, kw_only=True, gc=False):
    """Makes a table of counts of plays complete: its blocks are the newest records of their keys before this one. A reader whose
    blocks have other hashes takes no table.
    """

    sequence: Annotated[
        int, Meta(ge=1, description="Increases with every table; readers refuse a number that is not higher.")
    ]
    event_time_ms: Annotated[
        int,
        Meta(description="The newest event time that is counted, in milliseconds since 1970: the table is as of then."),
    ]
    offsets: Annotated[
        dict[str, int],
        Meta(
            description="By partition of the plays topic, the offset after the last play that is counted. Partition -1: plays "
            "older than the topic, numbered in their own order."
        ),
    ]
    decays_s: Annotated[list[float], Meta(description="Seconds after which each of an item's sums has fallen to 1/e.")]
    num_items: Annotated[int, Meta(ge=0, description="Items in all blocks together.")]
    blocks: Annotated[
        list[str],
        Meta(description="xxh3-64 of the value of each block, as 16 hexadecimal digits, in the order of the blocks."),
    ]
    written_at: Annotated[IsoTime, Meta(description="When the table was written: ISO 8601 in UTC with milliseconds.")]
