"""Decodes and validates plays, and encodes messages. An invalid play becomes a reason to reject it, never an exception.

The decoders are compiled once, when this module is imported. :mod:`stream.wire.messages` declares the limits they check. This
module checks only what one record shows by itself; the pipeline checks partitions, duplicates and lateness.
"""

from __future__ import annotations

import functools
import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct

from intentrec_core.errors import RejectReason
from stream.settings import MAX_PLAY_BYTES
from stream.wire.messages import (
    MAX_ID_LENGTH,
    MAX_TS_MS,
    PLAY_SCHEMA_VERSION,
    Announcement,
    CatalogueItem,
    IntentUpdate,
    Play,
    Recommendation,
)

if TYPE_CHECKING:
    from stream.wire.records import SourceRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
#: Longest detail of a rejection. It is sent in a Kafka header and quotes what the producer sent.
_DETAIL_LENGTH = 200


class DecodedPlay(Struct, frozen=True, gc=False):
    """A valid play. ``attributes`` holds the entries of the context, and the action under the key ``action``."""

    event_id: str
    user_id: str
    item_id: str
    ts_ms: int
    duration_s: float | None
    session_id: str | None
    attributes: dict[str, Any]


class RejectedPlay(Struct, frozen=True, gc=False):
    """Why a play goes to the dead-letter topic: the reason (one of an enum) and one line of detail for people."""

    reason: RejectReason
    detail: str


class _VersionOnly(Struct):
    schema_version: Any = PLAY_SCHEMA_VERSION


_decode_play = msgspec.json.Decoder(Play).decode
_decode_version = msgspec.json.Decoder(_VersionOnly).decode
_decode_recommendation = msgspec.json.Decoder(Recommendation).decode
_decode_intent = msgspec.json.Decoder(IntentUpdate).decode
_decode_announcement = msgspec.json.Decoder(Announcement).decode
_decode_item = msgspec.json.Decoder(CatalogueItem).decode
_encode = msgspec.json.Encoder().encode
#: The last field of an output as it is encoded, and where in a value its number begins, counted from the end.
NO_LATENCY = b',"latency_s":0.000000}'
_BEFORE_LATENCY = -len(b"0.000000}")


def decode_play(record: SourceRecord, max_future_ms: int) -> DecodedPlay | RejectedPlay:
    """Decodes and validates one play.

    ``max_future_ms``: how far event time may be ahead of the record's timestamp. A record without a timestamp (0 or negative)
    is exempt.

    Raises: nothing, whatever the bytes are.
    Cost: about 1 µs.
    """
    value = record.value
    if not value:
        return RejectedPlay(RejectReason.EMPTY, "the record has no value; send the play as a JSON object")
    if len(value) > MAX_PLAY_BYTES:
        return RejectedPlay(RejectReason.OVERSIZED, f"{len(value)} bytes; allowed: {MAX_PLAY_BYTES}")
    try:
        play = _decode_play(value)
        if not value.isascii():
            str(value, "utf-8")  # msgspec does not validate the names and strings that it skips
    except msgspec.ValidationError as error:
        return _invalid(value, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _rejected(RejectReason.MALFORMED, str(error))
    if play.schema_version != PLAY_SCHEMA_VERSION:
        return _unknown_schema(play.schema_version)
    user_id, ts_ms = play.user_id, play.ts
    if not (user_id.isascii() and play.item_id.isascii() and play.event_id.isascii()):
        too_long = _too_long(play)
        if too_long is not None:
            return too_long
    if isinstance(ts_ms, str):
        parsed = parse_time(ts_ms)
        if parsed is None:
            return _rejected(RejectReason.INVALID_FIELD, f"ts {ts_ms!r} is neither ISO 8601 nor epoch milliseconds")
        ts_ms = parsed
        if not 0 <= ts_ms < MAX_TS_MS:
            return _rejected(RejectReason.OUT_OF_RANGE, f"ts {play.ts!r}; allowed: 1970 up to 2100")
    timestamp = record.timestamp
    if ts_ms > timestamp + max_future_ms and timestamp > 0:
        ahead_s = (ts_ms - timestamp) / 1000
        return _rejected(
            RejectReason.FUTURE, f"ts is {ahead_s:.0f} s ahead of the record; allowed: {max_future_ms / 1000:g}"
        )
    key = record.key
    if key is not None and key != user_id.encode():
        return _rejected(RejectReason.KEY_MISMATCH, "the record's key is not user_id in UTF-8")
    attributes: dict[str, Any] = play.context or {}
    if play.action is not None:
        attributes["action"] = play.action
    return DecodedPlay(play.event_id, user_id, play.item_id, ts_ms, play.duration_s, play.session_id, attributes)


def parse_time(text: str) -> int | None:
    """Converts ISO 8601 (UTC if it has no offset) to milliseconds since 1970, rounded down; None if it is not a valid time."""
    try:
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None


def iso_time(ts_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, the format of times in outputs."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts_ms % 1000:03d}Z"


def encode(message: Play | Recommendation | IntentUpdate | Announcement | CatalogueItem) -> bytes:
    """A complete message as JSON."""
    return _encode(message)


def encode_output(message: Recommendation | IntentUpdate) -> bytes:
    """A whole message as JSON, ending with a ``latency_s`` of 0, which :func:`with_latency` replaces at publication.

    Raises: ValueError when the message has a latency already.
    """
    if message.latency_s is not UNSET:
        raise ValueError("latency_s is set: it is measured at publication")
    return _encode(message)[:-1] + NO_LATENCY


def with_latency(value: bytes, latency_s: float) -> bytes:
    """A value of :func:`encode_output` with its latency, in seconds.

    Raises: ValueError when the latency is not finite.
    """
    return value[:_BEFORE_LATENCY] + _latency_suffix(latency_s)


@functools.lru_cache(maxsize=1024)
def _latency_suffix(latency_s: float) -> bytes:
    # Cached, because under load many plays of a batch share a millisecond, and so their latency.
    if not math.isfinite(latency_s):
        raise ValueError(f"latency_s is {latency_s}")
    return b"%.6f}" % latency_s


def decode_recommendation(value: bytes) -> Recommendation:
    """Decodes a recommendation. Raises: msgspec.DecodeError when the bytes are not one."""
    return _decode_recommendation(value)


def decode_intent(value: bytes) -> IntentUpdate:
    """Decodes an intent update. Raises: msgspec.DecodeError when the bytes are not one."""
    return _decode_intent(value)


def decode_announcement(value: bytes) -> Announcement:
    """Decodes an announcement. Raises: msgspec.DecodeError when the bytes are not one."""
    return _decode_announcement(value)


def decode_item(value: bytes) -> CatalogueItem:
    """Decodes an item of the catalogue. Raises: msgspec.DecodeError when the bytes are not one."""
    return _decode_item(value)


def _invalid(value: bytes, detail: str) -> RejectedPlay:
    try:
        version = _decode_version(value).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        version = PLAY_SCHEMA_VERSION
    if version != PLAY_SCHEMA_VERSION:
        return _unknown_schema(version)
    # msgspec reports the violated limit only as text. Limits on a "length" concern the form, all others the range.
    is_range = "length" not in detail and re.search(r"(out of range|[<>]=? -?\d)", detail)
    return _rejected(RejectReason.OUT_OF_RANGE if is_range else RejectReason.INVALID_FIELD, detail)


def _too_long(play: Play) -> RejectedPlay | None:
    for name in ("user_id", "item_id", "event_id"):
        length = len(getattr(play, name).encode())
        if length > MAX_ID_LENGTH:
            return _rejected(RejectReason.INVALID_FIELD, f"{name} has {length} bytes; allowed: 1 to {MAX_ID_LENGTH}")
    return None


def _unknown_schema(version: object) -> RejectedPlay:
    return _rejected(RejectReason.UNKNOWN_SCHEMA, f"schema_version is {version!r}; known: {PLAY_SCHEMA_VERSION}")


def _rejected(reason: RejectReason, detail: str) -> RejectedPlay:
    return RejectedPlay(reason, " ".join(detail.split())[:_DETAIL_LENGTH])
