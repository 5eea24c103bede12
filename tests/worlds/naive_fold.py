"""An oracle of how plays fold into histories, written from the documents alone.

It shares no line with the product: it imports the standard library only, keeps plain lists and sorts them, and knows ids
as strings. So a mistake of the product is not repeated here. It reads a log from its beginning; it knows no batch, no
commit and no changelog.

Comments name the text each rule comes from. ``tests/property/test_naive_fold.py`` holds the product to all of it.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple, NoReturn

CONTROL_HEADER = "intentrec-control"  # asyncapi.json, ErasureRequest
MAX_VALUE_BYTES = 1_000_000  # stream/settings.py, MAX_PLAY_BYTES
END_OF_TIME_MS = 4_102_444_800_000  # play.schema.json, ts: 2100 is refused
MAX_FLOAT32 = 3.4028234663852886e38
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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

    applied: list[NaivePlay] = field(default_factory=list)  # in order of event time, evicted ones included
    last_offset: int = -1

    @property
    def num_applied(self) -> int:
        """Count k of all plays ever applied."""
        return len(self.applied)


@dataclass
class NaiveResult:
    """Histories at the end of the log; outcomes and opened sessions have one entry a record."""

    members: dict[tuple[int, str], NaiveMember] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)  # applied, duplicate, late, rejected or erased
    opened: list[bool] = field(default_factory=list)  # the play was applied and opened the newest play's session


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
    """Index of the first play of the context after the k-th (decision 2)."""
    return max(0, ((k - 1) // n - 1) * n)


def parse_play(value: bytes | None) -> NaivePlay:
    """The play in a record's value; ValueError where play.schema.json refuses it."""
    if not value:
        raise ValueError("empty")  # asyncapi.json, DeadLetter
    _need(len(value) <= MAX_VALUE_BYTES, "oversized")
    try:
        # UTF-8 said outright, since json.loads guesses UTF-16 and UTF-32 from bytes
        fields = json.loads(value.decode("utf-8"), parse_constant=_refuse)
        # messages.md, "A rejected play": text that is not UTF-8 is refused anywhere, also in names and in ignored fields
        json.dumps(fields, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    _need(isinstance(fields, dict), "malformed")
    # asyncapi.json, info: fields that are not known are ignored
    version = fields.get("schema_version", 1)
    _need(version is None or (_is_integer(version) and version == 1), "schema_version")  # messages.md: null is missing
    ids = [_text(fields.get(name), 1, 256) for name in ("event_id", "user_id", "item_id")]
    # messages.md, "A play": of all three ids
    _need(all(len(text.encode()) <= 256 for text in ids), "at most 256 bytes of UTF-8")
    action, duration, context = fields.get("action"), fields.get("duration_s"), fields.get("context")
    for optional in (action, fields.get("session_id")):
        _need(optional is None or bool(_text(optional, 1, 256)), "optional text")
    _need(duration is None or (_is_number(duration) and 0 <= duration <= 31_622_400), "duration_s")
    _need(context is None or isinstance(context, dict), "context")
    _need(sum(entry is not None for entry in (context or {}).values()) <= 64, "context")  # messages.md: null is missing
    for name, entry in (context or {}).items():
        _text(name, 1, 256)
        # messages.md, "A play", context: an integer has other limits than a number
        most = 2**53 if _is_integer(entry) else 3.4e38
        _need(
            entry is None  # messages.md: null is missing
            or isinstance(entry, bool)
            or (_is_number(entry) and -most <= entry <= most)
            or (isinstance(entry, str) and _text(entry, 0, 1024) == entry),
            "context",
        )
    return NaivePlay(ids[0], ids[1], ids[2], parse_time(fields.get("ts")), action, duration, context or {})


def parse_time(ts: Any) -> int:
    """Event time in milliseconds; ValueError where it is no time from 1970 to 2100."""
    if isinstance(ts, str):
        text = _text(ts, 1, 64)
        # messages.md, ts: digits are milliseconds, with a sign or without one, with a point and zeros or without them
        ms = int(text.split(".")[0]) if re.fullmatch(r"[+-]?[0-9]+(\.0+)?", text) else _iso_ms(text)
    else:
        _need(_is_number(ts) and ts == int(ts), "ts")  # messages.md, ts: 1.0 is the integer 1
        ms = int(ts)
    _need(0 <= ms < END_OF_TIME_MS, "out_of_range")
    return ms


def _iso_ms(text: str) -> int:
    """ISO 8601 by messages.md, ts: as Python 3.11 reads it, and 24:00, the leap second and a lower-case z besides."""
    text, later = re.sub("z$", "Z", text), timedelta()
    day = next((size for size in (10, 8, 7) if _is_date(text[:size])), 0)
    head, clock = text[: day + 1], text[day + 1 :]
    leap = re.match("[0-9]{2}:?[0-9]{2}:?60", clock)
    if day and clock.startswith("24"):
        text, later = f"{head}00{clock[2:]}", timedelta(days=1)
        _need(datetime.fromisoformat(text).time() == time(0) and not re.search("[1-9]", _fraction(clock)), "24:00")
    elif day and leap:
        text, later = f"{head}{leap[0][:-2]}59{clock[leap.end() :]}", timedelta(seconds=1)
    # messages.md, "A play", ts: a date alone means midnight
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # play.schema.json: without an offset, UTC
    # messages.md, ts: a leap second is one in UTC, whatever the offset is
    _need(not (day and leap) or moment.astimezone(UTC).strftime("%H%M%S") == "235959", "leap second")
    return (moment - EPOCH + later) // timedelta(milliseconds=1)  # finer digits are cut off, not rounded


def _is_date(text: str) -> bool:
    try:
        return bool(re.fullmatch("[0-9W-]+", text) and date.fromisoformat(text))
    except ValueError:
        return False


def _fraction(clock: str) -> str:
    found = re.search("[.,]([0-9]+)", clock)
    return found[1] if found else ""


@dataclass(kw_only=True)
class NaiveFold:
    """Folds a log record by record, the records of each partition in order of offset, from its beginning.

    ``window`` is n of anchor(k), ``watched`` is w. ``num_partitions`` is None where the setting plays_partitioner is "any":
    then a key may lie in any partition. ``numbers`` are the entries of ``context`` that the domain reads as numbers.
    """

    window: int
    watched: int
    session_gap_ms: int
    max_future_ms: int
    earliest_ms: int
    num_partitions: int | None
    numbers: Collection[str] = ()
    members: dict[tuple[int, str], NaiveMember] = field(default_factory=dict)  # by partition and user id

    def add(self, raw: NaiveRecord | tuple[Any, ...]) -> tuple[str, bool]:
        """Folds the next record; its outcome, and whether it opened a session."""
        record = NaiveRecord(*raw)
        try:
            if _is_erasure(record):
                self._erase(record)
                return "erased", False
            play = parse_play(record.value)
            self._check_play(record, play)
        except (ValueError, OverflowError):
            return "rejected", False
        # Two members may use the same event_id: a history knows its own only.
        member = self.members.get((record.partition, play.user_id), NaiveMember())
        outcome = self._judge(play, member)
        if outcome != "applied":
            return outcome, False
        # A member begins with its first applied play, so nothing is kept for any other outcome.
        self.members[record.partition, play.user_id] = member
        member.last_offset = record.offset  # of the last play applied, in the order of the log
        # ARCHITECTURE, "Order and lateness": in event time. Of equal times the later in the log comes later.
        place = bisect_right(member.applied, play.ts, key=_ts)
        member.applied.insert(place, play)
        return "applied", self._opens(member.applied, place)

    def plays(self, member: NaiveMember) -> list[NaivePlay]:
        """The plays that a history holds: events[anchor(k):k] (decision 2), and no play besides."""
        return member.applied[anchor(member.num_applied, self.window) :]

    def watched_items(self, member: NaiveMember) -> list[str]:
        """The items of the last w plays, in event time, evicted ones included; an item played twice is there twice."""
        return [play.item_id for play in member.applied[-self.watched :]] if self.watched else []

    def newest_evicted(self, member: NaiveMember) -> NaivePlay | None:
        """The last play, in order, of those that are no longer held."""
        num_evicted = anchor(member.num_applied, self.window)
        return member.applied[num_evicted - 1] if num_evicted else None

    def remembered(self, member: NaiveMember) -> list[str]:
        """Event ids of evicted plays that a repeat is recognised by: the first 4n at the newest one's event time."""
        newest = self.newest_evicted(member)
        evicted = member.applied[: anchor(member.num_applied, self.window)]
        return [play.event_id for play in evicted if newest and play.ts == newest.ts][: 4 * self.window]

    def session_start(self, member: NaiveMember, place: int) -> int:
        """Event time at which the session of the play at ``place`` of all applied began."""
        while place and not self._is_gap(member.applied, place):
            place -= 1
        return member.applied[place].ts

    def _erase(self, record: NaiveRecord) -> None:
        """Drop the member with every play before the record; later plays begin anew (decision 32)."""
        # asyncapi.json, ErasureRequest. The header alone makes a record a request: one that says anything but "forget",
        # or says it twice, is refused and is no play. A value is ignored.
        _need([value for name, value in record.headers if name == CONTROL_HEADER] == [b"forget"], "unknown_schema")
        key = record.key or b""
        user_id = key.decode("utf-8")
        _need(0 < len(key) <= 256, "user_id")
        self._check_partition(record, user_id)  # as a play is
        self.members.pop((record.partition, user_id), None)  # a request for an unknown member is obeyed all the same

    def _check_play(self, record: NaiveRecord, play: NaivePlay) -> None:
        """Refuse a valid play from the future, elsewhere than its key says, or with a number that is none."""
        # A record without a key is held to the partition of its user_id alone.
        _need(record.key is None or record.key == play.user_id.encode(), "key_mismatch")
        self._check_partition(record, play.user_id)
        # messages.md, ts: not before the domain's earliest
        _need(play.ts >= self.earliest_ms, "out_of_range")
        # ARCHITECTURE, "What never happens": by the record's own timestamp. The tolerance itself is allowed. A record
        # without a timestamp is held to nothing. messages.md: one with a timestamp of 2100 or later is no time at all.
        _need(record.timestamp_ms < END_OF_TIME_MS, "out_of_range")
        _need(record.timestamp_ms <= 0 or play.ts <= record.timestamp_ms + self.max_future_ms, "future")
        for name in self.numbers:
            number = play.context.get(name)
            number = {None: 0, "true": 1, "false": 0}.get(number, number)  # messages.md: also as texts
            _need(math.isfinite(float(number)) and abs(float(number)) <= MAX_FLOAT32, "number")

    def _check_partition(self, record: NaiveRecord, user_id: str) -> None:
        num = self.num_partitions
        _need(num is None or partition_of(user_id.encode(), num) == record.partition, "wrong_partition")

    def _judge(self, play: NaivePlay, member: NaiveMember) -> str:
        """Whether a play that may be folded is a duplicate, late or applied."""
        held, newest = self.plays(member), self.newest_evicted(member)
        # ARCHITECTURE, "Duplicates": an event id that is held is one whatever else the play says, and before lateness is
        # asked.
        if any(play.event_id == other.event_id for other in held):
            return "duplicate"
        # ARCHITECTURE, "Order and lateness": the rest is judged by T, the time of the newest play that was evicted. While
        # none was, nothing is late.
        if newest is None or play.ts > newest.ts:
            return "applied"
        if play.ts < newest.ts:
            return "late"
        # At T itself: H, which is closed when it has 4n event ids.
        remembered = self.remembered(member)
        if play.event_id in remembered:
            return "duplicate"
        return "late" if len(remembered) == 4 * self.window else "applied"

    def _opens(self, applied: list[NaivePlay], place: int) -> bool:
        """An output names the session of the newest play; the play at ``place`` opened it if it is the first one there."""
        is_first = place == 0 or self._is_gap(applied, place)
        return is_first and not any(self._is_gap(applied, later) for later in range(place + 1, len(applied)))

    def _is_gap(self, applied: list[NaivePlay], place: int) -> bool:
        # play.schema.json, session_id: sessions are derived from gaps in event time, and session_gap_s itself is no gap.
        return applied[place].ts - applied[place - 1].ts > self.session_gap_ms


def fold(records: Iterable[NaiveRecord | tuple[Any, ...]], **rules: Any) -> NaiveResult:
    """Fold a whole log by the rules of ``NaiveFold``."""
    folded, result = NaiveFold(**rules), NaiveResult()
    for record in records:
        outcome, opened = folded.add(record)
        result.outcomes.append(outcome)
        result.opened.append(opened)
    result.members = folded.members
    return result


def _is_erasure(record: NaiveRecord) -> bool:
    """Whether a record is an erasure request, well formed or not, and no play."""
    return any(name == CONTROL_HEADER for name, _ in record.headers)


def _ts(play: NaivePlay) -> int:
    return play.ts


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
    # messages.md, "A play", context: an integer is written without a point
    return isinstance(value, int) and not isinstance(value, bool)
