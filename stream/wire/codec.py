"""Decodes and validates plays, and encodes messages. An invalid play becomes a reason to reject it, never an exception.

The decoders are compiled once, when this module is imported. :mod:`stream.wire.messages` declares the limits they check. This
module checks only what one record shows by itself; the pipeline checks partitions, duplicates and lateness.
"""

from __future__ import annotations

import functools
import json
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct

from intentrec_core.errors import RejectReason
from intentrec_core.limits import MAX_CONTEXT_ENTRIES, MAX_ID_BYTES, MAX_NAME_LENGTH
from intentrec_core.times import END_MS, outside, parse_time, unit_hint
from stream.settings import MAX_PLAY_BYTES
from stream.wire.messages import (
    MAX_TIME_LENGTH,
    PLAY_SCHEMA_VERSION,
    Announcement,
    CatalogueItem,
    ContextValue,
    IntentUpdate,
    ItemCountsHead,
    Play,
    Recommendation,
)

if TYPE_CHECKING:
    from stream.wire.records import SourceRecord

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


class _RawTime(Struct):
    ts: Raw


class _RawContext(Struct):
    context: dict[str, Raw]


_decode_play = msgspec.json.Decoder(Play).decode
_decode_raw_time = msgspec.json.Decoder(_RawTime).decode
_decode_raw_context = msgspec.json.Decoder(_RawContext).decode
_decode_entry = msgspec.json.Decoder(ContextValue).decode
_decode_version = msgspec.json.Decoder(_VersionOnly).decode
_decode_recommendation = msgspec.json.Decoder(Recommendation).decode
_decode_intent = msgspec.json.Decoder(IntentUpdate).decode
_decode_announcement = msgspec.json.Decoder(Announcement).decode
_decode_item = msgspec.json.Decoder(CatalogueItem).decode
_decode_counts_head = msgspec.json.Decoder(ItemCountsHead).decode
_encode = msgspec.json.Encoder().encode
#: What a decoder raises: DecodeError and the other two for bytes that no decoder of JSON takes.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: Halves of surrogate pairs, which JSON can spell alone ("\\ud83d").
_HALVES = re.compile("[\ud800-\udfff]")
#: The last field of an output as it is encoded, and where in a value its number begins, counted from the end.
NO_LATENCY = b',"latency_s":0.000000}'
BEFORE_LATENCY = -len(b"0.000000}")


def decode_play(record: SourceRecord, earliest_ms: int, max_future_ms: int) -> DecodedPlay | RejectedPlay:
    """Decodes and validates one play.

    ``earliest_ms``: the earliest event time, in milliseconds since 1970. ``max_future_ms``: how far event time may be ahead of
    the record's timestamp. A record without a timestamp (0 or negative) is exempt from the second, and 2100 is its limit. One
    whose timestamp is in 2100 or later is refused: that number is in another unit than milliseconds, and would bound nothing.

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
        return _invalid(record, str(error), earliest_ms, max_future_ms)
    except _UNREADABLE as error:
        return _rejected(RejectReason.MALFORMED, _half_of_a_pair(value) or str(error))
    if play.schema_version != PLAY_SCHEMA_VERSION and play.schema_version is not None:
        return _unknown_schema(play.schema_version)
    user_id, ts_ms = play.user_id, play.ts
    if not (user_id.isascii() and play.item_id.isascii() and play.event_id.isascii()):
        too_long = _too_long(play)
        if too_long is not None:
            return too_long
    if type(ts_ms) is not int:  # isinstance takes longer to say no
        try:
            ts_ms = parse_time(ts_ms) if isinstance(ts_ms, str) else int(ts_ms)
        except ValueError as error:
            return _rejected(RejectReason.INVALID_FIELD, f"ts {error}")
    if not earliest_ms <= ts_ms <= record.timestamp + max_future_ms < END_MS:
        beyond_limits = _beyond_limits(record, play.ts, ts_ms, earliest_ms, max_future_ms)
        if beyond_limits is not None:
            return beyond_limits
    key = record.key
    if key is not None and key != user_id.encode():
        return _rejected(RejectReason.KEY_MISMATCH, "the record's key is not user_id in UTF-8")
    attributes: dict[str, Any] | None = play.context
    if not attributes:
        attributes = {}
    elif len(attributes) > MAX_CONTEXT_ENTRIES:
        num_given = sum(entry is not None for entry in attributes.values())
        if num_given > MAX_CONTEXT_ENTRIES:
            detail = f"context has {num_given} entries that are not null; allowed: at most {MAX_CONTEXT_ENTRIES}"
            return _rejected(RejectReason.INVALID_FIELD, detail)
    if play.action is not None:
        attributes["action"] = play.action
    return DecodedPlay(play.event_id, user_id, play.item_id, ts_ms, play.duration_s, play.session_id, attributes)


def encode(message: Play | Recommendation | IntentUpdate | Announcement | CatalogueItem | ItemCountsHead) -> bytes:
    """A complete message as JSON."""
    return _encode(message)


def encode_output(message: Recommendation | IntentUpdate) -> bytes:
    """A whole message as JSON, ending with a ``latency_s`` of 0. At publication it is replaced, as by :func:`with_latency`.

    Raises: ValueError when the message has a latency already.
    """
    if message.latency_s is not UNSET:
        raise ValueError("latency_s is set: it is measured at publication")
    return _encode(message)[:-1] + NO_LATENCY


def with_latency(value: bytes, latency_s: float) -> bytes:
    """A value of :func:`encode_output` with its latency, in seconds.

    Raises: ValueError when the latency is not finite.
    """
    return value[:BEFORE_LATENCY] + latency_text(latency_s)


@functools.lru_cache(maxsize=1024)
def latency_text(latency_s: float) -> bytes:
    """How a value of :func:`encode_output` ends, from ``BEFORE_LATENCY`` on, with this latency, in seconds.

    Raises: ValueError when the latency is not finite.
    """
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


def decode_counts_head(value: bytes) -> ItemCountsHead:
    """Decodes the head of a table of counts. Raises: msgspec.DecodeError when the bytes are not one."""
    return _decode_counts_head(value)


def _end_ms(record: SourceRecord, earliest_ms: int, max_future_ms: int) -> int:
    """The first time that is too late for a play of this record."""
    timestamp = record.timestamp
    return min(END_MS, timestamp + max_future_ms + 1) if timestamp > earliest_ms else END_MS


def _beyond_limits(
    record: SourceRecord, shown: float | str, ts_ms: int, earliest_ms: int, max_future_ms: int
) -> RejectedPlay | None:
    """Why a play is rejected that is early or late, or whose record has no timestamp that bounds it; None where it is taken."""
    timestamp = record.timestamp
    if not earliest_ms <= ts_ms < END_MS:
        end_ms = _end_ms(record, earliest_ms, max_future_ms)
        return _rejected(RejectReason.OUT_OF_RANGE, outside("ts", shown, ts_ms, earliest_ms, end_ms))
    of_record = outside("the timestamp of the record", timestamp, timestamp, earliest_ms)
    if timestamp >= END_MS:
        return _rejected(RejectReason.OUT_OF_RANGE, of_record)
    if timestamp <= 0 or ts_ms <= timestamp + max_future_ms:
        return None
    ahead_s = (ts_ms - timestamp) / 1000
    detail = f"ts is {ahead_s:.0f} s ahead of the record; allowed: {max_future_ms / 1000:g}"
    return _rejected(RejectReason.FUTURE, f"{detail}; {of_record}" if timestamp < earliest_ms else detail)


def _invalid(record: SourceRecord, detail: str, earliest_ms: int, max_future_ms: int) -> RejectedPlay:
    """Why a play of valid JSON is not one. ``detail`` is what msgspec says: it names the field, but neither keys nor units."""
    value = record.value or b""
    try:
        version = _decode_version(value).schema_version
    except _UNREADABLE:
        version = PLAY_SCHEMA_VERSION
    if version != PLAY_SCHEMA_VERSION:
        return _unknown_schema(version)
    # msgspec reports the violated limit only as text. Limits on a "length" concern the form, all others the range.
    is_range = "length" not in detail and re.search(r"(out of range|[<>]=? -?\d)", detail)
    reason = RejectReason.OUT_OF_RANGE if is_range else RejectReason.INVALID_FIELD
    if detail.endswith("`$.ts`"):
        detail = _time_fault(value, earliest_ms, _end_ms(record, earliest_ms, max_future_ms)) or detail
    elif "`$.context" in detail:
        detail = _context_fault(value) or detail
    return _rejected(reason, detail)


def _half_of_a_pair(value: bytes) -> str | None:
    """Where a whole JSON object has half of a surrogate pair; None for anything else.

    msgspec names no field. It reads on for the other half, and where the value ends first, it says that the value was truncated.
    """
    try:
        play = json.loads(value)
        context = play.pop("context", None)
        entries = [(ascii(name)[1:-1], name, entry) for name, entry in play.items()]
        if isinstance(context, dict):
            entries += [(f"context[{key!a}]", key, entry) for key, entry in context.items()]
        for place, *texts in entries:
            if _HALVES.search(json.dumps(texts, ensure_ascii=False)):
                return f"{place[:120]}: half of a surrogate pair, which is no UTF-8; allowed: texts in UTF-8"
    except (ValueError, AttributeError, RecursionError):  # no whole JSON, or no object
        pass
    return None


def _time_fault(value: bytes, earliest_ms: int, end_ms: int) -> str | None:
    """What is wrong with a ``ts`` that is a number or a text; None for anything else."""
    try:
        ts = msgspec.json.decode(_decode_raw_time(value).ts)
    except _UNREADABLE:
        return None
    if isinstance(ts, float) and not ts.is_integer():
        hint = unit_hint(ts, earliest_ms, end_ms)
        return f"ts is {ts!r}, a number with a point; allowed: whole milliseconds since 1970{hint}"
    if isinstance(ts, str):
        try:
            parse_time(ts)
        except ValueError as error:
            return f"ts {error}"
        return f"ts has {len(ts)} characters; allowed: 1 to {MAX_TIME_LENGTH}"
    if isinstance(ts, (int, float)) and not isinstance(ts, bool):
        return outside("ts", ts, int(ts), earliest_ms, end_ms)
    return None


def _context_fault(value: bytes) -> str | None:
    """Which entry of ``context`` is wrong, and in which way."""
    try:
        context = _decode_raw_context(value).context
    except _UNREADABLE:
        return None
    for key, entry in context.items():
        if not 1 <= len(key) <= MAX_NAME_LENGTH:
            return f"context has a key of {len(key)} characters ({key[:40]!r}); allowed: 1 to {MAX_NAME_LENGTH}"
        try:
            _decode_entry(entry)
        except _UNREADABLE as error:
            return f"context[{key[:80]!r}]: {error}"
    return None


def _too_long(play: Play) -> RejectedPlay | None:
    for name in ("user_id", "item_id", "event_id"):
        length = len(getattr(play, name).encode())
        if length > MAX_ID_BYTES:
            return _rejected(RejectReason.INVALID_FIELD, f"{name} has {length} bytes; allowed: 1 to {MAX_ID_BYTES}")
    return None


def _unknown_schema(version: object) -> RejectedPlay:
    return _rejected(RejectReason.UNKNOWN_SCHEMA, f"schema_version is {version!r}; known: {PLAY_SCHEMA_VERSION}")


def _rejected(reason: RejectReason, detail: str) -> RejectedPlay:
    return RejectedPlay(reason, " ".join(detail.split())[:_DETAIL_LENGTH])
