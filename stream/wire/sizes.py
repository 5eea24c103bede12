"""How large the outputs can become, and what their topics take.

    names of a domain ──▶ largest intent update  ┐
    ids, titles, k ─────▶ largest recommendation ├─▶ checked before a bundle serves, against the limits of the topics
    limits of ids ──────▶ both                   ┘
    each message as it is written ─▶ too large? ─▶ titles are cut, else a dead letter instead of the message

Sizes are measured on real messages that hold the longest text in every field, so they cannot differ from what is written.
JSON escapes a control character with 6 bytes, so an id of 256 bytes can take 1,536.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from intentrec_core.domain.spec import Domain, FilterKind, json_bytes
from intentrec_core.errors import HidingReason
from intentrec_core.limits import MAX_ID_BYTES, MAX_TITLE_LENGTH
from stream.wire.codec import encode_output
from stream.wire.messages import (
    ClosedSession,
    Coalesced,
    HiddenBy,
    IntentLabel,
    IntentUpdate,
    PrimaryIntent,
    Recommendation,
    RecommendedItem,
    Source,
)
from stream.wire.records import OutputKind

#: Kafka's default for max.message.bytes: 1 MiB of records, and the framing of a batch.
KAFKA_MAX_MESSAGE_BYTES = 1_048_588
#: What a topic must take besides a message's value: the key and ce_subject (256 bytes each), intentrec-id and ce_id (305 each),
#: traceparent and tracestate (640), other headers (260), names and framing of all headers (260), the framing of record and batch
#: (100), and the digits of ``latency_s``, which is measured later (24). The rest is room.
OVERHEAD_BYTES = 3072
#: A dead letter keeps at least 64 KiB each of value, key and the producer's headers, and has a few headers of ours.
MIN_DEAD_LETTER_BYTES = 256 * 1024

#: Kafka allows no longer name.
_LONGEST_TOPIC = "t" * 249
_LONGEST_ID = "\0" * MAX_ID_BYTES
_LARGEST_INTEGER = 2**63 - 1
_LARGEST_PARTITION = 2**31 - 1
_LONGEST_SCORE = -3.4028234663852886e38
#: Of a closed session's intent, head and label in JSON: a label may take most of a message, which would have to name it again.
_MAX_CLOSED_LABEL_BYTES = 1024
_LONGEST_CLOSED_LABEL = IntentLabel("x" * _MAX_CLOSED_LABEL_BYTES, "")
_LONGEST_PROBABILITY = 0.12345
#: Between the earliest and the last event time that is allowed; more digits than any of them in milliseconds has.
_LONGEST_SECONDS = 12345678901.123
_MARK = "…"


@dataclass(frozen=True, kw_only=True)
class TopicLimits:
    """max.message.bytes of the topics that a worker writes to. The defaults are those of :mod:`stream.kafka.topics`."""

    recommendations: int = KAFKA_MAX_MESSAGE_BYTES
    intents: int = KAFKA_MAX_MESSAGE_BYTES
    dead_letter: int = 2 * 1024 * 1024
    late: int = 2 * 1024 * 1024
    changelog: int = KAFKA_MAX_MESSAGE_BYTES

    @property
    def smallest(self) -> int:
        """The most bytes of a batch that every one of the topics takes."""
        return min(self.recommendations, self.intents, self.dead_letter, self.late, self.changelog)

    def of(self, kind: OutputKind) -> int:
        """The most bytes of an output of this kind: of a message's value, or of a dead letter with key and headers."""
        limits = {
            OutputKind.RECOMMENDATION: self.recommendations,
            OutputKind.INTENT: self.intents,
            OutputKind.DEAD_LETTER: self.dead_letter,
            OutputKind.LATE: self.late,
        }
        return limits[kind] - OVERHEAD_BYTES


#: The limits of topics that :func:`stream.kafka.topics.create_topics` made.
DEFAULT_LIMITS = TopicLimits()


def largest_intent_update(domain: Domain, embedding_width: int = 0) -> int:
    """Bytes of the largest intent update of a domain, for any member and play. ``embedding_width``: 0 if none is published."""
    probability = _LONGEST_PROBABILITY
    named = [(head.name, label) for head in domain.heads for label in head.label_names]
    head, label = max(named, key=lambda names: json_bytes(names[0]) + json_bytes(names[1]))
    message = IntentUpdate(
        **_LONGEST_FIELDS,
        session_opened=False,
        intents={head.name: dict.fromkeys(head.label_names, probability) for head in domain.heads},
        weights=dict.fromkeys((head.name for head in domain.heads), probability),
        primary=PrimaryIntent(head, label, probability),
        shifted=False,
        closed_session=ClosedSession("f" * 16, _LONGEST_SECONDS, _LARGEST_INTEGER, _LONGEST_CLOSED_LABEL),
        embedding=_longest_vector(embedding_width),
    )
    return len(encode_output(message))


def closed_label(head: str, label: str) -> IntentLabel | msgspec.UnsetType:
    """The intent of a closed session; nothing if its names are too long to be named again in every message."""
    is_short = json_bytes(head) + json_bytes(label) <= _MAX_CLOSED_LABEL_BYTES
    return IntentLabel(head, label) if is_short else UNSET


def largest_recommendation(
    domain: Domain, item_ids: Sequence[str], titles: Sequence[str], k: int, query_width: int = 0
) -> int:
    """Bytes of the largest recommendation of ``k`` of these items, for any member and play. Without titles, pass empty ones.
    ``query_width``: 0 if no query is published.

    Cost: encodes every item once.
    """
    query = _longest_vector(query_width)
    values = _longest_values(domain) if query_width else UNSET
    empty = len(encode_output(_longest_list(UNSET, query, values)))
    hidden = len(encode_output(_longest_list(_longest_reasons(domain), query, values)))
    sizes = (entry_bytes(item_id, title) for item_id, title in zip(item_ids, titles, strict=True))
    # A comma follows every item but the last.
    return max(hidden, empty + sum(size + 1 for size in heapq.nlargest(k, sizes)))


def fits_whatever_the_items(domain: Domain, k: int, max_bytes: int, query_width: int = 0) -> bool:
    """Whether no recommendation of ``k`` items can exceed ``max_bytes``, whatever the catalogue holds. Cost: none."""
    longest = largest_recommendation(domain, [_LONGEST_ID] * k, ["\0" * MAX_TITLE_LENGTH] * k, k, query_width)
    return longest <= max_bytes


def entry_bytes(item_id: str, title: str) -> int:
    """Bytes of one item in a recommendation, with the longest score."""
    return len(msgspec.json.encode(RecommendedItem(item_id, title, _LONGEST_SCORE)))


def with_short_titles(message: Recommendation, max_bytes: int) -> bytes | None:
    """The recommendation as JSON in at most ``max_bytes``: without reasons and rows, and if that is not enough, with each title
    cut to an equal share of what is left for titles.

    None if it does not fit without any title either.
    """
    items = [RecommendedItem(i.item_id, i.title, i.score) for i in message.items]
    message = msgspec.structs.replace(message, items=items, rows=UNSET)
    plain = encode_output(message)
    if items and len(plain) <= max_bytes:
        return plain
    bare = msgspec.structs.replace(message, items=[RecommendedItem(i.item_id, "", i.score) for i in items])
    left = max_bytes - len(encode_output(bare))
    if left < 0 or not items:
        return None
    share = left // len(items)
    short = [RecommendedItem(i.item_id, cut_text(i.title, share), i.score) for i in items]
    return encode_output(msgspec.structs.replace(message, items=short))


def cut_text(text: str, max_bytes: int) -> str:
    """The text if its JSON, without quotes, takes at most ``max_bytes``; else its beginning, with "…" if there is room for it."""
    with_quotes = max_bytes + 2
    if json_bytes(text) <= with_quotes:
        return text
    room = max_bytes - len(_MARK.encode())
    if room < 0:
        return ""
    low, high = 0, min(len(text), room)  # characters; each takes a byte or more
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if json_bytes(text[:middle]) - 2 <= room else (low, middle - 1)
    return text[:low] + _MARK


def _longest_vector(width: int) -> bytes | msgspec.UnsetType:
    return bytes(4 * width) if width else UNSET


def _longest_list(
    hidden_by: list[HiddenBy] | msgspec.UnsetType,
    query: bytes | msgspec.UnsetType = UNSET,
    filter_values: dict[str, float | str] | msgspec.UnsetType = UNSET,
) -> Recommendation:
    return Recommendation(
        **_LONGEST_FIELDS,
        items=[],
        fallback="popular",
        hidden_by=hidden_by,
        counts_sequence=_LARGEST_INTEGER,
        recommendation_id=f"{_LARGEST_PARTITION}-{_LARGEST_INTEGER}-{_LONGEST_FIELDS['bundle']}",
        query=query,
        filter_values=filter_values,
    )


def _longest_values(domain: Domain) -> dict[str, float | str] | msgspec.UnsetType:
    keys = [f.event_key for f in domain.event_filters]
    return dict.fromkeys(keys, _LONGEST_SCORE) if keys else UNSET


def _longest_reasons(domain: Domain) -> list[HiddenBy]:
    longest = max(HidingReason, key=len)
    filters = [f for f in domain.filters if f.kind is not FilterKind.WATCHED]
    return [HiddenBy(f.kind.value, f.key, longest.value, f.event_key or UNSET) for f in filters]


_LONGEST_FIELDS: dict[str, Any] = {
    "user_id": _LONGEST_ID,
    "session_id": "f" * 16,
    "event_id": _LONGEST_ID,
    "event_time": "2099-12-31T23:59:59.999Z",
    "bundle": "b" + "f" * 12,
    "source": Source(_LONGEST_TOPIC, _LARGEST_PARTITION, _LARGEST_INTEGER),
    "coalesced": Coalesced(_LARGEST_INTEGER, _LARGEST_INTEGER),
    "catalogue_offset": _LARGEST_INTEGER,
}
