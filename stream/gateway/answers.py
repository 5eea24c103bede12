"""What the gateway answers where it is not a message of a topic as it is. The OpenAPI contract is generated from these types.

Answers only ever gain optional fields; clients ignore fields that they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from intentrec_core.limits import MAX_ID_BYTES
from stream.wire.messages import HiddenBy, Id, IsoTime, PrimaryIntent, RecommendedItem, Source

MAX_RANKED_ITEMS = 1000

BundleVersion = Annotated[str, Meta(description="Version of the bundle that this was made with.")]


class PopularAnswer(Struct, frozen=True, kw_only=True):
    """What is popular, for a member of whom nothing is known."""

    user_id: str
    known: Annotated[
        Literal[False], Meta(description="No play of this member has been answered, as far as is known.")
    ] = False
    bundle: BundleVersion
    items: Annotated[list[RecommendedItem], Meta(description="Most popular item first.")]
    fallback: Literal["popular"] = "popular"
    hidden_by: Annotated[
        list[HiddenBy] | UnsetType,
        Meta(
            description="Present only if items is empty because filters hide every item: these filters, with the reason."
        ),
    ] = UNSET


class RowsAnswer(Struct, frozen=True, kw_only=True):
    """The rows of a member's page, as the newest recommendation has them."""

    user_id: str
    session_id: str
    event_id: Annotated[str, Meta(description="event_id of the play as of which this is.")]
    event_time: IsoTime
    bundle: BundleVersion
    source: Source
    recommendation_id: str | UnsetType = UNSET
    rows: Annotated[list[dict[str, Any]], Meta(description="As in the message, first row first.")]


class PopularRow(Struct, frozen=True, kw_only=True):
    """A row of what is popular, as a message has it."""

    kind: Literal["popular"] = "popular"
    title: str = "Popular now"
    weight: float = 1.0
    items: list[RecommendedItem]


class PopularRowsAnswer(Struct, frozen=True, kw_only=True):
    """One row of what is popular, for a member of whom nothing is known; none where filters hide every item."""

    user_id: str
    known: Annotated[
        Literal[False], Meta(description="No play of this member has been answered, as far as is known.")
    ] = False
    bundle: BundleVersion
    rows: list[PopularRow]


class StoredItem(Struct, frozen=True, kw_only=True):
    """An item of the announced bundle."""

    item_id: str
    title: str
    attributes: Annotated[dict[str, Any], Meta(description="Values by name, as the catalogue has them.")]


class ItemsAnswer(Struct, frozen=True, kw_only=True):
    """Items that were searched for, popular ones first."""

    bundle: BundleVersion
    items: list[StoredItem]


class SimilarAnswer(Struct, frozen=True, kw_only=True):
    """The items nearest to one."""

    item_id: str
    bundle: BundleVersion
    items: Annotated[list[RecommendedItem], Meta(description="Nearest first; score is the cosine of the item vectors.")]


class RankRequest(Struct, frozen=True, kw_only=True):
    """Candidates to be put into a member's order."""

    items: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]],
        Meta(
            min_length=1,
            max_length=MAX_RANKED_ITEMS,
            description="Ids of items, in any order; one that occurs twice counts once.",
        ),
    ]


class RankAnswer(Struct, frozen=True, kw_only=True):
    """Candidates in the member's order as of its newest play."""

    user_id: str
    bundle: BundleVersion
    event_id: Annotated[str, Meta(description="event_id of the play as of which this is.")]
    event_time: IsoTime
    source: Source
    items: Annotated[list[RecommendedItem], Meta(description="Best item first.")]
    filtered: Annotated[list[str], Meta(description="Candidates that a filter hides from this member.")]
    unknown: Annotated[list[str], Meta(description="Candidates that the bundle does not know.")]


class TicketAnswer(Struct, frozen=True, kw_only=True):
    """A ticket for one stream."""

    ticket: str
    expires_in_s: Annotated[int, Meta(description="Seconds within which it can be used, once.")]


class PlayAnswer(Struct, frozen=True, kw_only=True):
    """Where the broker has put a play."""

    event_id: Id
    topic: str
    partition: int
    offset: int


class MemberSummary(Struct, frozen=True, kw_only=True):
    """A member that changed lately."""

    user_id: str
    session_id: str
    event_time: IsoTime
    bundle: str
    primary: PrimaryIntent | None


class MembersAnswer(Struct, frozen=True, kw_only=True):
    """Members of this gateway, the one that changed last first."""

    users: list[MemberSummary]


class GatewayStatus(Struct, frozen=True, kw_only=True):
    """One gateway."""

    address: str
    ready: bool
    partitions: list[int]
    gateways: int
    members: int
    bytes: int
    evicted_members: int
    streams: int


class UpdatesStatus(Struct, frozen=True, kw_only=True):
    """Recommendations read since the start, and over the last 10 s."""

    total: int
    per_s: float
    latency_p50_s: float | None
    latency_p99_s: float | None


class AnnouncedBundle(Struct, frozen=True, kw_only=True):
    """One announcement."""

    bundle: str
    sequence: int
    announced_at: IsoTime
    reason: str
    parent: str | None = None


class BundleStatus(Struct, frozen=True, kw_only=True):
    """The bundle that is announced."""

    version: str
    sequence: int
    announced_at: IsoTime
    reason: str
    parent: str | None
    loaded: Annotated[bool, Meta(description="Whether this gateway answers from it.")]


class MetricSample(Struct, frozen=True, kw_only=True):
    """One sample of a metric."""

    labels: dict[str, str]
    value: float


class ProcessStatus(Struct, frozen=True, kw_only=True):
    """A worker or trainer whose metrics this gateway reads."""

    url: str
    ready: bool
    metrics: Annotated[
        dict[str, list[MetricSample]], Meta(description="By name; empty if the process does not answer.")
    ]


class StatusAnswer(Struct, frozen=True, kw_only=True):
    """The pipeline as one gateway sees it."""

    time: IsoTime
    gateway: GatewayStatus
    updates: UpdatesStatus
    bundle: BundleStatus | None
    announcements: list[AnnouncedBundle]
    processes: list[ProcessStatus]
