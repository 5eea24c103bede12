"""The trainer says the same as the worker of every record: a play or none, and if it is one, the same bytes.

Any value of any type in any field, times in every unit and form, keys that one field reads as a number and another one as a text.
The third opinion is the naive fold, which shares no line with either.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from intentrec_core.domain.toml import parse_domain
from intentrec_core.history.history import EventLayout, History
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import plays_table
from stream.pipeline.folding import Folder
from stream.trainer.log_follower import PlayReader
from stream.wire.erasure_record import is_erasure_request
from stream.wire.records import OutputKind
from tests.property.test_naive_fold import BATCHES, ENTRIES, NUM_PARTITIONS, Entry, as_naive, to_log
from tests.worlds.bundle_world import Record
from tests.worlds.member_state import naive_fold

NOW_MS = 1_772_396_100_000
#: Fields and filters of every kind that are stored with a play. One key is read as a number, as texts and as a hash.
DOMAIN = parse_domain(
    """
name = "mixed"
[history]
window = 4
watched = 8
earliest = 1995-06-01
max_future_s = 60
[[field]]
name = "action"
kind = "categorical"
source = "event"
values = ["play", "7", "true"]
intent = true
[[field]]
name = "limit"
kind = "bucketed"
source = "event"
edges = [1.0, 7.5]
[[field]]
name = "limit_name"
kind = "categorical"
source = "event"
key = "limit"
values = ["7", "true", "false", "0", "0.5", "1e+20", "100000000000000000000", "-0.0"]
[[field]]
name = "length"
kind = "bucketed"
source = "event"
key = "duration_s"
edges = [60.0]
[[filter]]
kind = "at_most"
key = "maturity"
event_key = "max_maturity"
[[filter]]
kind = "contains"
key = "regions"
event_key = "region"
""",
    "mixed.toml",
)
LAYOUT = EventLayout(DOMAIN)

NUMBERS = st.one_of(
    st.integers(-(2**54), 2**54),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from([0, -0.0, 7, 7.0, 0.5, 1e20, 1e-320, 3.4e38, 3.4028235e38, 2**53 + 1]),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.sampled_from(
        ["7", "7.0", " 7 ", "true", "True", "nan", "inf", "1e39", "3.40282348e38", "-0.0", "", "x\x00", "é"]
    ),
    st.text(max_size=8),
    NUMBERS.map(str),
    st.sampled_from([[], {}, "y" * 1024, "y" * 1025]),
)
#: Within and around the limits of the domain and of the record, in every unit, as a number and as a text.
MOMENTS_MS = st.sampled_from(
    [801_964_800_000, 801_964_799_999, NOW_MS, NOW_MS + 60_000, NOW_MS + 60_001, 0, -1]
) | st.integers(800_000_000_000, 4_102_444_800_000)
NUMBERS_OF_TIME = st.builds(
    lambda ts_ms, unit: {
        "s": ts_ms // 1000,
        "ms": ts_ms,
        "us": ts_ms * 1000,
        "ns": ts_ms * 10**6,
        "float s": ts_ms / 1000,
        "float ms": float(ts_ms),
        "half ms": ts_ms + 0.5,
    }[unit],
    MOMENTS_MS,
    st.sampled_from(["s", "ms", "ms", "ms", "us", "ns", "float s", "float ms", "float ms", "half ms"]),
)
CLOCKS = st.builds(
    "2026-03-{:02}{}{}{}".format,
    st.integers(0, 32),
    st.sampled_from(["T", "t", " "]),
    st.sampled_from(
        [
            "20:15:00",
            "23:59:60",
            "23:59:60.9999",
            "24:00",
            "240000",
            "24:00:00.000",
            "24:00:01",
            "12:60",
            "00:59:60",
            "8:15",
        ]
    ),
    st.sampled_from(["", "Z", "z", "+01:00", "+0100", "-23:59", "+24:00", "ZZ"]),
)
TIMES = NUMBERS_OF_TIME | NUMBERS_OF_TIME.map(str) | CLOCKS | st.text(max_size=70) | st.none() | st.booleans()
#: Of the record: as it is, missing, in another unit, and around 2100.
TIMESTAMPS = st.sampled_from(
    [NOW_MS, NOW_MS, NOW_MS, 0, -1, NOW_MS // 1000, NOW_MS * 1000, 4_102_444_799_999, 4_102_444_800_000]
)
KEYS = st.sampled_from(["limit", "max_maturity", "region", "action", "duration_s", ""])
PLAY: dict[str, Any] = {"event_id": "e", "user_id": "ann", "item_id": "i", "ts": NOW_MS}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "ts": TIMES,
    "event_id": st.text(max_size=4) | st.none(),
    "item_id": st.text(max_size=4) | st.integers(0, 9),
    "action": st.none() | st.sampled_from(["play", "7", "true", "other", "", 7]),
    "duration_s": NUMBERS | st.none() | st.just("5"),
    "session_id": st.none() | st.text(max_size=3),
    "schema_version": st.sampled_from([None, 1, 1.0, 2, "1"]),
    "context": st.none()
    | st.dictionaries(
        st.sampled_from(["limit", "max_maturity", "region", "action", "duration_s", "other", ""]), VALUES, max_size=3
    )
    | st.builds(
        lambda num, num_nulls: {f"k{at}": None if at < num_nulls else at for at in range(num)},
        st.sampled_from([64, 65, 100]),
        st.sampled_from([0, 1, 35, 36]),
    ),
}


def check(document: dict[str, Any], timestamp: int = NOW_MS) -> None:
    record = Record(3, json.dumps(document).encode(), b"ann", timestamp=timestamp)
    histories: dict[str, History] = {}
    work = Folder(LAYOUT, None).fold(0, histories, [record])
    logged = PlayReader(DOMAIN, None).read(record)
    is_play = naive_fold(DOMAIN, None).add(as_naive(record))[0] == "applied"
    assert (bool(work.answers), logged is not None) == (is_play, is_play)
    if logged is None:
        assert [output.kind for output in work.outputs] == [OutputKind.DEAD_LETTER]
        return
    assert (logged.offset, logged.arrival_ms, logged.play.user_id) == (3, timestamp, "ann")
    assert pack_members(LAYOUT, plays_table([logged.play])).events.tobytes() == histories["ann"].events


@given(data=st.data(), timestamp=TIMESTAMPS)
@settings(max_examples=500)
def test_of_any_record_the_three_say_the_same(data: st.DataObject, timestamp: int) -> None:
    document = dict(PLAY)
    for name in data.draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True), "fields"):
        document[name] = data.draw(FIELDS[name], name)
    check(document, timestamp)


@given(limit=VALUES, more=st.none() | st.dictionaries(KEYS, VALUES, max_size=2), duration_s=st.none() | NUMBERS)
@example(limit=True, more=None, duration_s=None)
@example(limit=-0.0, more=None, duration_s=-0.0)
@example(limit=7.0, more=None, duration_s=0.1)
@example(limit=1e20, more=None, duration_s=None)
@example(limit=" 7 ", more={"max_maturity": "true", "region": 7.0}, duration_s=None)
@settings(max_examples=400)
def test_of_any_context_the_three_say_the_same(limit: Any, more: dict[str, Any] | None, duration_s: Any) -> None:
    check(PLAY | {"context": {"limit": limit} | (more or {}), "duration_s": duration_s})


@given(entries=ENTRIES, sizes=BATCHES)
@settings(max_examples=60)
def test_of_a_whole_log_the_trainer_keeps_what_the_worker_does_not_reject(
    entries: list[Entry], sizes: list[int]
) -> None:
    records, reader = to_log(entries), PlayReader(DOMAIN, NUM_PARTITIONS)
    for partition in range(NUM_PARTITIONS):
        histories: dict[str, History] = {}
        rejected: set[int] = set()
        log = [record for record in records if record.partition == partition]
        while log:
            batch, log = log[: sizes[0]], log[sizes[0] :]
            work = Folder(LAYOUT, NUM_PARTITIONS).fold(partition, histories, batch)
            rejected |= {o.source_offset for o in work.outputs if o.kind is OutputKind.DEAD_LETTER}
        for record in (record for record in records if record.partition == partition):
            taken = reader.erased_user(record) if is_erasure_request(record) else reader.read(record)
            assert (taken is None) == (record.offset in rejected), record
