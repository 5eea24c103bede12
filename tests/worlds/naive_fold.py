"""An oracle of how plays fold into histories, written from the documents alone.

It shares no line with the product: it imports the standard library only, keeps plain lists and sorts them, and knows ids
as strings. So a mistake of the product is not repeated here. It reads a log from its beginning; it knows no batch, no
commit and no changelog.

Comments name the text each rule comes from. A comment that begins with READING marks a place where the documents are
silent, and says which reading is taken.

Out of scope: a repeat of a play that the history has already evicted. The product cannot know it any more, the documents
do not say what becomes of it, and ``fold`` raises ``OutOfScope``: the caller must leave such records out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn

MAX_VALUE_BYTES = 1_000_000  # stream/settings.py, MAX_PLAY_BYTES
END_OF_TIME_MS = 4_102_444_800_000  # play.schema.json, ts: 2100 is refused
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OutOfScope(Exception):
    """The log holds what the documents leave open: a repeat of an evicted play."""


class NaiveRecord(NamedTuple):
    """One record of the plays topic, as a consumer reads it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class NaivePlay(NamedTuple):
    """One valid play; ids are the producer's own text, and event time is in milliseconds."""

    event_id: str
    user_id: str
    item_id: str
    ts: int
    action: str | None
    duration_s: float | None
    context: dict[str, Any]


@dataclass
class NaiveMember:
    """All that a member ever had applied since it began, and what a bounded history shows of it."""

    window: int
    applied: list[NaivePlay] = field(default_factory=list)  # in order of event time, evicted ones included
    watched: list[str] = field(default_factory=list)  # item ids, the newest last
    last_offset: int = -1

    @property
    def num_applied(self) -> int:
        """Count k of all plays ever applied."""
        return len(self.applied)

    @property
    def plays(self) -> list[NaivePlay]:
        """The plays that the history holds: events[anchor(k):k] (ARCHITECTURE, "The context")."""
        # READING: a history holds its context, and no play besides.
        return self.applied[anchor(self.num_applied, self.window) :]


@dataclass
class NaiveResult:
    """Histories at the end of the log; outcomes and opened sessions have one entry a record."""

    members: dict[tuple[int, str], NaiveMember] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)  # applied, duplicate, late, rejected or erased
    opened: list[bool] = field(default_factory=list)  # the play was applied and opened a session


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, as the signed number that Java gives."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    h ^= h >> 15
    return h - (1 << 32) if h >> 31 else h


def partition_of(key: bytes, num_partitions: int) -> int:
    """The partition that Kafka's default partitioner chooses for a key."""
    return (murmur2(key) & 0x7FFFFFFF) % num_partitions


def anchor(k: int, n: int) -> int:
    """Index of the first play of the context after the k-th (docs/decisions 2)."""
    return max(0, ((k - 1) // n - 1) * n)


def parse_play(value: bytes | None) -> NaivePlay:
    """The play in a record's value; ValueError where play.schema.json refuses it."""
    if not value:
        raise ValueError("empty")  # asyncapi.json, DeadLetter
    _need(len(value) <= MAX_VALUE_BYTES, "oversized")
    try:
        # UTF-8 said outright, since json.loads guesses UTF-16 and UTF-32 from bytes
        fields = json.loads(value.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None
    _need(isinstance(fields, dict), "malformed")
    # asyncapi.json, info: fields that are not known are ignored
    version = fields.get("schema_version", 1)
    _need(_is_integer(version) and version == 1, "schema_version")
    ids = [_text(fields.get(name), 1, 256) for name in ("event_id", "user_id", "item_id")]
    _need(all(len(text.encode()) <= 256 for text in ids[1:]), "at most 256 bytes of UTF-8")
    action, duration, context = fields.get("action"), fields.get("duration_s"), fields.get("context")
    for optional in (action, fields.get("session_id")):
        _need(optional is None or bool(_text(optional, 1, 256)), "optional text")
    _need(duration is None or (_is_number(duration) and 0 <= duration <= 31_622_400), "duration_s")
    _need(context is None or (isinstance(context, dict) and len(context) <= 64), "context")
    for name, entry in (context or {}).items():
        _text(name, 1, 256)
        # READING: anyOf in the schema lets an integer beyond 2**53 pass as a number.
        _need(
            isinstance(entry, bool)
            or (_is_number(entry) and -3.4e38 <= entry <= 3.4e38)
            or (isinstance(entry, str) and _text(entry, 0, 1024) == entry),
            "context",
        )
    return NaivePlay(ids[0], ids[1], ids[2], parse_time(fields.get("ts")), action, duration, context or {})


def parse_time(ts: Any) -> int:
    """Event time in milliseconds; ValueError where it is no time from 1970 to 2100."""
    if isinstance(ts, str):
        # READING: a date alone is ISO 8601 and means midnight, since the schema's least length is that of a date.
        moment = datetime.fromisoformat(_text(ts, 10, 64))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # play.schema.json: without an offset, UTC
        ms = (moment - EPOCH) // timedelta(milliseconds=1)  # READING: finer digits are cut off, not rounded
    else:
        _need(_is_integer(ts), "ts")
        ms = int(ts)
    _need(0 <= ms < END_OF_TIME_MS, "out_of_range")
    return ms


def fold(
    records: Iterable[NaiveRecord | tuple[Any, ...]],
    *,
    window: int,
    watched: int,
    session_gap_ms: int,
    max_future_ms: int,
    num_partitions: int | None,
) -> NaiveResult:
    """Fold a log, the records of each partition in order of offset, from its beginning.

    ``window`` is n of anchor(k). ``num_partitions`` is None where the setting plays_partitioner is "any": then a key may
    lie in any partition. Raises OutOfScope at a repeat of an evicted play.
    """
    result = NaiveResult()
    for record in (NaiveRecord(*raw) for raw in records):
        opened = False
        if _is_forget(record):
            outcome = _forget(record, result.members, num_partitions)
        else:
            try:
                play = parse_play(record.value)
                _check_place(record, play, max_future_ms, num_partitions)
            except (ValueError, OverflowError):
                outcome = "rejected"
            else:
                # READING: two members may use the same event_id; a history knows its own only.
                member = result.members.get((record.partition, play.user_id), NaiveMember(window))
                outcome = _judge(play, member)
                if outcome == "applied":
                    opened = _apply(play, record.offset, member, watched, session_gap_ms)
                    # a member begins with its first applied play, so nothing is kept for any other outcome
                    result.members[record.partition, play.user_id] = member
        result.outcomes.append(outcome)
        result.opened.append(opened)
    return result


def _is_forget(record: NaiveRecord) -> bool:
    """Whether a record is an order to forget (asyncapi.json, ErasureRequest; README, "Forgetting a member")."""
    # READING: with a value, even an empty one, it is a play; without the header a null value is an empty play.
    return record.value is None and any(header == ("intentrec-control", b"forget") for header in record.headers)


def _forget(record: NaiveRecord, members: dict[tuple[int, str], NaiveMember], num_partitions: int | None) -> str:
    """Drop the member with every play before the record; plays behind it begin anew (docs/decisions 32)."""
    try:
        user_id = (record.key or b"").decode("utf-8")
        _need(0 < len(user_id.encode()) <= 256, "user_id")
        # READING: an order is held to its key's partition as a play is.
        _need(
            num_partitions is None or partition_of(record.key or b"", num_partitions) == record.partition, "elsewhere"
        )
    except ValueError:
        return "rejected"
    members.pop((record.partition, user_id), None)  # an order for an unknown member is obeyed all the same
    return "erased"


def _check_place(record: NaiveRecord, play: NaivePlay, max_future_ms: int, num_partitions: int | None) -> None:
    """Refuse a valid play from the future, or elsewhere than its key says (README, "Guarantees")."""
    # READING: a key that is missing is not the user's.
    _need(record.key == play.user_id.encode(), "key_mismatch")
    _need(
        num_partitions is None or partition_of(play.user_id.encode(), num_partitions) == record.partition, "partition"
    )
    # ARCHITECTURE, "What never happens": by the record's own timestamp. READING: the tolerance itself is allowed.
    _need(play.ts <= record.timestamp_ms + max_future_ms, "future")


def _judge(play: NaivePlay, member: NaiveMember) -> str:
    """Whether a play that may be folded is a duplicate, late or applied."""
    held = member.plays
    # play.schema.json: event_id names the play, and a repeated one changes nothing.
    # READING: so a repeat counts as one whatever else it says, and before lateness is asked.
    if any(play.event_id == other.event_id for other in held):
        return "duplicate"
    evicted = member.applied[: member.num_applied - len(held)]
    if any(play.event_id == other.event_id for other in evicted):
        raise OutOfScope(f"{play.event_id!r} of {play.user_id!r} was applied and evicted before")
    # README, "a play comes late": set aside when its place is gone. READING: it is gone when a play was evicted and the
    # play is older than all that are held, as the history stood before it. Nothing else makes a play late.
    return "late" if evicted and play.ts < held[0].ts else "applied"


def _apply(play: NaivePlay, offset: int, member: NaiveMember, watched: int, session_gap_ms: int) -> bool:
    """Fold a play in where it belongs in event time; whether it opens a session."""
    # README: in event time. READING: of equal times the later in the log comes later (sorted is stable).
    member.applied = sorted([*member.applied, play], key=lambda other: other.ts)
    # READING: "last source offset" is that of the last play applied, in the order of the log.
    member.last_offset = offset
    # domains/*.toml, watched. READING: distinct items, in the order in which they were last folded in.
    member.watched = [*(item for item in member.watched if item != play.item_id), play.item_id][-watched:]
    # play.schema.json, session_id: sessions are derived from gaps in event time.
    # READING: a gap to the play before it, in event time, of more than session_gap_s.
    place = max(at for at, other in enumerate(member.applied) if other.event_id == play.event_id)
    return place == 0 or play.ts - member.applied[place - 1].ts > session_gap_ms


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)


def _refuse(name: str) -> NoReturn:
    """NaN and Infinity, which Python reads, are not JSON."""
    raise ValueError(name)


def _text(value: Any, least: int, most: int) -> str:
    """A string of so many characters; ValueError for any other value, and for half of a surrogate pair."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise ValueError("text")
    value.encode()
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    # READING: as JSON Schema says it, 1.0 is an integer.
    return _is_number(value) and (isinstance(value, int) or value.is_integer())
