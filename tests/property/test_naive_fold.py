"""The product's fold against an oracle that shares nothing with it: tests/worlds/naive_fold.py.

Random logs in random micro-batches: what becomes of each record, every history, and what the changelog restores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intentrec_core.history.changelog_codec import Restorer
from intentrec_core.history.history import History
from stream.bundles.serving import Serving
from stream.pipeline.folding import Folder
from stream.wire.codec import decode_intent
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import Record, make_pipeline, make_serving
from tests.worlds.member_state import MemberState, naive_fold, naive_state, product_state
from tests.worlds.naive_fold import NaiveRecord, partition_of
from tests.worlds.tiny_world import START_MS, TinyWorld

WORLD = TinyWorld()
LAYOUT, DOMAIN = WORLD.layout, WORLD.domain
NUM_PARTITIONS = 2
USERS = ["ann", "ben", "çé", "d" * 256]
GAP_S = int(DOMAIN.session_gap_s)
FORGET = ("intentrec-control", b"forget")
NOT_PLAYS = [None, b"", b"{", b"[]", b"\xff", '{"event_id": "é"}'.encode("utf-16")]
#: What is no valid play of the domain, and what only looks like it.
FIELDS: list[dict[str, Any]] = [
    {},
    {"schema_version": 2},
    {"event_id": ""},
    {"item_id": "é" * 129},
    {"duration_s": -1},
    {"context": {"max_maturity": "many"}},
    {"context": {"max_maturity": "7"}},
    {"context": {"max_maturity": True, "device": "phone"}},
    {"context": {"device": "fridge"}, "action": "continue"},
    {"context": None, "duration_s": None, "unknown": [1]},
    {"context": {"max_maturity": None, "device": None}, "schema_version": None},
    {"context": {"max_maturity": "true"}},
]


class Entry(NamedTuple):
    """One record to be: a member's play, or what the names say."""

    user: str
    form: str
    step_s: float  # of event time; back by as much for a play that is out of order
    fields: dict[str, Any]


FORMS = (
    ["play"] * 14
    + ["repeat", "again"] * 3
    + ["future", "edge", "no play", "misplaced", "no key", "key", "erasure", "control"]
)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(USERS),
        st.sampled_from(FORMS),
        st.sampled_from([0, 0, 0.001, 1, 60, GAP_S, GAP_S + 0.001, -0.001, -60, -5 * GAP_S]),
        st.sampled_from([{}] * 8 + FIELDS),
    ),
    min_size=20,
    max_size=90,
)
BATCHES = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def to_log(entries: Sequence[Entry]) -> list[Record]:
    """The records of all partitions in the order they were sent, each partition with its own offsets."""
    records, ends, clock_ms = list[Record](), [0] * NUM_PARTITIONS, START_MS
    sent: dict[str, list[str]] = {user: [] for user in USERS}
    values: dict[str, list[bytes]] = {user: [] for user in USERS}
    for number, (user, form, step_s, fields) in enumerate(entries):
        clock_ms += max(0, int(step_s * 1000))
        ts = clock_ms + min(0, int(step_s * 1000))
        timestamp = ts - (300_000 if form == "edge" else 300_001) if form in ("edge", "future") else clock_ms
        event = f"event-{number}"
        if form == "repeat" and sent[user]:
            event = sent[user][-(1 + number % 9) % len(sent[user])]  # of its newest plays mostly, some of them evicted
        else:
            sent[user].append(event)
        play = {"event_id": event, "user_id": user, "item_id": f"item-{number % 7}", "ts": ts, "duration_s": 90.5}
        value: bytes | None = json.dumps(play | fields).encode()
        if form == "again" and values[user]:
            value = values[user][number * number % len(values[user])]  # exactly as it was, however long ago
        elif form in ("play", "repeat"):
            values[user].append(value)
        key: bytes | None = user.encode()
        headers: tuple[tuple[str, bytes], ...] = ()
        partition = partition_of(user.encode(), NUM_PARTITIONS)
        if form == "no play":
            value = NOT_PLAYS[number % len(NOT_PLAYS)]
        elif form == "misplaced":
            partition = 1 - partition
            if number % 2:
                value, headers = None, (FORGET,)
        elif form in ("no key", "key"):
            key = None if form == "no key" else b"zoe"
        elif form == "erasure":
            value, headers = (value if number % 3 == 0 else None), (("trace", b"1"), FORGET)
        elif form == "control":
            value, headers = None, ((FORGET, FORGET), ((FORGET[0], b"other"),))[number % 2]
        records.append(Record(ends[partition], value, key, partition, timestamp=timestamp, headers=headers))
        ends[partition] += 1
    return records


def as_naive(record: Record) -> NaiveRecord:
    return NaiveRecord(record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


class Product:
    """Folds micro-batches as the worker does, and keeps what the compacted changelog holds."""

    def __init__(self, num_partitions: int | None) -> None:
        self.histories: list[dict[str, History]] = [{} for _ in range(NUM_PARTITIONS)]
        self.changelogs: list[dict[bytes, bytes | None]] = [{} for _ in range(NUM_PARTITIONS)]
        self._num_partitions = num_partitions

    def fold(self, records: Sequence[Record]) -> dict[tuple[int, int], str]:
        """What became of each record of a micro-batch, by partition and offset."""
        folder, outcomes = Folder(LAYOUT, self._num_partitions), dict[tuple[int, int], str]()
        for partition, histories in enumerate(self.histories):
            share = [record for record in records if record.partition == partition]
            if not share:
                continue
            work = folder.fold(partition, histories, share)
            self.changelogs[partition] |= work.changelog
            found = {answer.record.offset: "applied" for answer in work.answers}
            found |= {o.source_offset: "late" if o.kind is OutputKind.LATE else "rejected" for o in work.outputs}
            for record in share:
                # Neither has an output: they are told apart by what the record is, and by the counts below.
                silent = "erased" if any(name == FORGET[0] for name, _ in record.headers) else "duplicate"
                outcomes[partition, record.offset] = found.get(record.offset, silent)
            counts, seen = work.outcomes, [outcomes[partition, record.offset] for record in share]
            assert (counts.num_applied, counts.num_duplicates) == (seen.count("applied"), seen.count("duplicate"))
            assert (counts.num_late, counts.num_rejected) == (seen.count("late"), seen.count("rejected"))
            assert (counts.num_erasures, counts.num_replayed) == (seen.count("erased"), 0)
        return outcomes

    def states(self) -> dict[tuple[int, str], MemberState]:
        return _states(self.histories)

    def restored(self) -> dict[tuple[int, str], MemberState]:
        histories = []
        for changelog in self.changelogs:
            restorer = Restorer(LAYOUT)
            for key, value in changelog.items():
                restorer.feed(key, value)
            histories.append(restorer.finish()[0])
        return _states(histories)

    def live_users(self) -> set[tuple[int, bytes]]:
        """Whose bytes the changelog still holds: user ids are the keys' beginnings (see changelog_codec)."""
        return {
            (partition, key[:-4])
            for partition, changelog in enumerate(self.changelogs)
            for key, value in changelog.items()
            if value is not None
        }


def _states(histories: Sequence[dict[str, History]]) -> dict[tuple[int, str], MemberState]:
    return {
        (partition, user): product_state(history, LAYOUT)
        for partition, by_user in enumerate(histories)
        for user, history in by_user.items()
        if history.count
    }


@pytest.mark.parametrize("num_partitions", [NUM_PARTITIONS, None])
@given(entries=ENTRIES, sizes=BATCHES)
@settings(max_examples=300)
def test_the_product_folds_as_the_oracle_does(
    num_partitions: int | None, entries: list[Entry], sizes: list[int]
) -> None:
    assert_alike(num_partitions, entries, sizes)


#: One member's plays at few times, and exact repeats. With n = 4, 16 evicted plays of one time are known.
TIES = st.lists(
    st.builds(
        Entry,
        st.just(USERS[0]),
        st.sampled_from(["play", "play", "again", "repeat"]),
        st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 0.001, -0.001, -0.002, GAP_S + 0.001]),
        st.just({}),
    ),
    min_size=40,
    max_size=90,
)


@given(entries=TIES, sizes=BATCHES)
@settings(max_examples=200)
def test_plays_of_one_time_and_exact_repeats_are_folded_as_the_oracle_does(
    entries: list[Entry], sizes: list[int]
) -> None:
    assert_alike(None, entries, sizes)


def assert_alike(num_partitions: int | None, entries: Sequence[Entry], sizes: Sequence[int]) -> None:
    product, oracle = Product(num_partitions), naive_fold(DOMAIN, num_partitions)
    records, low, nth = to_log(entries), 0, 0
    while low < len(records):
        batch = records[low : low + sizes[nth % len(sizes)]]
        found = product.fold(batch)
        expected = {(record.partition, record.offset): oracle.add(as_naive(record))[0] for record in batch}
        assert found == expected
        states = {name: naive_state(oracle, member, DOMAIN) for name, member in oracle.members.items()}
        assert product.states() == states
        assert product.restored() == states
        assert product.live_users() == {(partition, user.encode()) for partition, user in states}, "tombstones"
        low, nth = low + len(batch), nth + 1


#: Every field at and beyond its limits, and of other types. Ids that are not UTF-8 come in as half of a surrogate pair.
TEXTS = ["", "x", "é" * 128, "é" * 129, "x" * 256, "x" * 257, "\ud800", "\x00", None, 7, True, []]
NUMBERS = [0, -0.0, 1, 1.0, 1.5, 1e300, -1, 2**53, 2**53 + 1, 2**70, 31_622_400, 31_622_401, "1", True, False, None]
TIMES = [
    START_MS,
    float(START_MS),
    START_MS + 0.5,
    1e12,
    -1,
    0,
    4_102_444_799_999,
    4_102_444_800_000,
    "2023-11-14",
    "2023-11-14T22:13:20",
    "2023-11-14T22:13:20Z",
    "2023-11-14 22:13:20.1239+02:00",
    "20231114T221320",
    "2023-W46-2",
    "1969-12-31T23:59:59.999Z",
    "2100-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:00",
    "2023-11-14T22:13:20" + "0" * 50,
    str(START_MS),
    START_MS // 1000,
    str(START_MS // 1000),
    START_MS * 1000,
    DOMAIN.earliest_ms,
    DOMAIN.earliest_ms - 1,
    "2023-11-14t22:13:20z",
    "2023-11-14T24:00",
    "2023-11-14 24:00:00.001",
    "2016-12-31T23:59:60.75Z",
    "2016-12-31T23:58:60Z",
    None,
    True,
]
CONTEXTS = st.one_of(
    st.sampled_from([None, [], "x", 7]),
    st.dictionaries(
        st.sampled_from(["device", "max_maturity", "limit", "action", "", "x" * 256, "x" * 257, "\ud800"]),
        st.sampled_from(
            [*TEXTS, *NUMBERS, 2.0**60, 3.4e38, 3.5e38, "nan", "inf", "1e39", " 7 ", "x" * 1024, "x" * 1025, {}]
        ),
        max_size=2,  # more would nearly always hold something that is refused
    ),
    st.integers(63, 66).map(lambda num: {str(at): at for at in range(num)}),
)


@given(data=st.data())
@settings(max_examples=1500)
def test_the_product_accepts_the_plays_that_the_oracle_does(data: st.DataObject) -> None:
    """Two or three fields of a valid play are replaced."""
    document: dict[str, Any] = {"event_id": "e", "user_id": "ann", "item_id": "i", "ts": START_MS}
    choices: dict[str, st.SearchStrategy[Any]] = {
        "event_id": st.sampled_from(TEXTS),
        "item_id": st.sampled_from(TEXTS),
        "ts": st.sampled_from(TIMES),
        "action": st.sampled_from(TEXTS),
        "session_id": st.sampled_from(TEXTS),
        "duration_s": st.sampled_from([*NUMBERS, float("nan"), float("inf"), "nan"]),
        "schema_version": st.sampled_from([*NUMBERS, 10**400]),
        "context": CONTEXTS,
        "unknown": st.sampled_from([{"deep": [1]}, "\ud800", float("nan")]),
    }
    for name in data.draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=3, unique=True)):
        document[name] = data.draw(choices[name])
    raw = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    value = data.draw(st.sampled_from([raw, raw, raw, raw[:-1], raw + b" ", b"\xef\xbb\xbf" + raw, raw + b"{}"]))
    record = Record(0, value, b"ann", timestamp=4_102_444_800_000)
    product, oracle = Product(None), naive_fold(DOMAIN, None)
    assert product.fold([record])[0, 0] == oracle.add(as_naive(record))[0], value
    states = {name: naive_state(oracle, member, DOMAIN) for name, member in oracle.members.items()}
    assert product.states() == states


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


SESSION_STEPS = st.sampled_from([1, 60, GAP_S, GAP_S + 1, -1, -61, -GAP_S - 2, -3 * GAP_S])


#: The context is full, and its fourth play opens a session.
FULL = [("ann", step_s) for step_s in (1, 1, 1, GAP_S + 1, 1, 1, 1, 1)]


@given(st.lists(st.tuples(st.sampled_from(USERS[:2]), SESSION_STEPS), min_size=1, max_size=30), BATCHES)
@example(
    steps=[("ann", 1), ("ann", 60), ("ann", -60)], sizes=[1]
)  # after the first play, at its time: it opens nothing
@example(steps=[*FULL, ("ann", -4)], sizes=[1])  # at the time of the fourth play, which it evicts: it opens nothing
@example(steps=[*FULL, ("ann", -4)], sizes=[9])
@example(
    steps=[*FULL[:3], ("ann", 1), ("ann", GAP_S + 2), *FULL[5:], ("ann", -4)], sizes=[1]
)  # it opens the session itself
@example(steps=[*FULL, ("ann", 1), ("ann", -5)], sizes=[1])  # at that time, but the fourth play is evicted already
@settings(max_examples=60)
def test_the_play_that_opened_the_session_says_so(
    serving: Serving, steps: list[tuple[str, int]], sizes: list[int]
) -> None:
    """What is published with each play: whether it opened the session that the output names, also among plays of one time."""
    records = to_log([Entry(user, "play", step_s, {}) for user, step_s in steps])
    records = [replace(record, partition=0, offset=at) for at, record in enumerate(records)]
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    pipeline, oracle = make_pipeline(serving), naive_fold(DOMAIN, None)
    found, low, nth = dict[int, bool](), 0, 0
    while low < len(records):
        batch = records[low : low + sizes[nth % len(sizes)]]
        (result,) = pipeline.process({0: batch})
        for output in result.outputs:
            if output.kind is OutputKind.INTENT:
                found[output.source_offset] = decode_intent(output.value).session_opened
        low, nth = low + len(batch), nth + 1
    judged = {record.offset: oracle.add(as_naive(record)) for record in records}
    assert found == {offset: opened for offset, (outcome, opened) in judged.items() if outcome == "applied"}
