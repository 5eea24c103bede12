"""Reads every topic back with an independent client and compares it with the oracle.

The oracle is the naive fold of the input log, which shares nothing with the workers'. The state is what the changelog says,
read committed. Outputs are judged as a subscriber sees them: repeats by id dropped, then what lies below the member's highest
source offset. A play is answered, or named by the answer to a later play of its member that was coalesced with it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import confluent_kafka
import msgspec

from intentrec_core.history.changelog_codec import Marker, Restorer
from intentrec_core.history.history import EventLayout, History
from stream.wire.messages import Coalesced
from stream.wire.records import ID_HEADER
from tests.worlds.expected_outputs import expected_outputs
from tests.worlds.member_state import MemberState, naive_fold, naive_state, product_state
from tests.worlds.naive_fold import NaiveFold, NaiveRecord, parse_play

if TYPE_CHECKING:
    from stream.settings import Settings

States = dict[tuple[int, str], MemberState]
"""By partition and user id."""

_READ_DEADLINE_S = 120.0
#: What a client waits for by default: half a second for an empty answer to a fetch, which tells an end; half a second between two
#: questions where a log begins; and a while before it asks again who leads a partition.
_AT_ONCE = {
    "auto.offset.reset": "earliest",  # assigned from 0, which retention may have deleted
    "fetch.wait.max.ms": 10,
    "topic.metadata.refresh.fast.interval.ms": 20,
}
#: Messages are given out when so many are there or the poll is over.
POLL_S = 0.02


#: A worker commits every half second; it may have to restart and restore first.
_COMMITTED_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All zero but ``plays``, ``members``, ``repeats`` and ``named`` when the guarantee held.

    ``lost`` and ``twice`` count plays over all members; ``wrong_states`` members whose history is not the oracle's in every
    column. ``missing`` counts expected output ids that were neither seen nor named, ``unexpected`` ids seen that no record has,
    ``repeats`` outputs beyond the first of their id, ``out_of_order`` outputs whose first appearance was behind a later one of
    the same member, and that none had named by then; ``named`` those that others stand for.
    """

    plays: int
    members: int
    lost: int
    twice: int
    wrong_states: int
    missing: int
    unexpected: int
    repeats: int
    out_of_order: int
    named: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, left out or put out of order."""
        return not (
            self.lost or self.twice or self.wrong_states or self.missing or self.unexpected or self.out_of_order
        )

    def figures(self) -> dict[str, int]:
        """By name, for a report."""
        return asdict(self)


def judge(
    settings: Settings,
    layout: EventLayout,
    *,
    isolation: str = "read_uncommitted",
    given_up: Collection[tuple[int, int]] = frozenset(),
    too_large: Mapping[tuple[int, int], Collection[bytes]] | None = None,
) -> Verdict:
    """Reads plays, changelog and outputs to their ends, once a checkpoint covers every play in the log.

    A worker answers before it commits: its last answer says nothing of the state.

    ``isolation`` is that of the outputs' subscriber; ``given_up`` are the plays, by partition and offset, that inference could
    not answer: they have a dead letter instead. ``too_large``: the kinds of messages of a play that its topics do not take.
    The plays count those in the log, valid or not.

    Raises: TimeoutError naming the partitions that no checkpoint covers within ``_COMMITTED_WITHIN_S``.
    """
    oracle = _oracle(settings, layout)
    expected_ids: set[bytes] = set()
    owners: dict[tuple[int, int], bytes] = {}
    num_plays, last_offsets = 0, dict[int, int]()
    for record in read_all(settings, settings.plays_topic):
        num_plays += 1
        last_offsets[record.partition] = record.offset
        place = record.partition, record.offset
        outcome = oracle.add(as_naive(record))[0]
        if outcome == "applied" and place in given_up:
            expected_ids.update(expected_outputs(record, "rejected"))
            continue
        expected_ids.update(expected_outputs(record, outcome, (too_large or {}).get(place, ())))
        if outcome == "applied":
            owners[place] = parse_play(record.value).user_id.encode()
    expected = _states(oracle, layout)
    _wait_until_committed(settings, layout, last_offsets)
    found = restored(settings, layout)
    seen: Counter[bytes] = Counter()
    named: set[bytes] = set()
    out_of_order = 0
    for topic in (settings.recommendations_topic, settings.intents_topic):
        newest: dict[bytes | None, int] = defaultdict(lambda: -1)
        for record in read_all(settings, topic, isolation):
            name = _id(record)
            seen[name] += 1
            offset = int(name.split(b"-")[-2])
            out_of_order += seen[name] == 1 and name not in named and offset < newest[record.key]
            named.update(_names(record, owners))
            newest[record.key] = max(newest[record.key], offset)
    for topic in (settings.dead_letter_topic, settings.late_topic):
        seen.update(_id(record) for record in read_all(settings, topic, isolation))
    return Verdict(
        plays=num_plays,
        members=len(expected),
        lost=sum(max(0, h.count - (found[u].count if u in found else 0)) for u, h in expected.items()),
        twice=sum(max(0, h.count - (expected[u].count if u in expected else 0)) for u, h in found.items()),
        wrong_states=sum(expected.get(u) != found.get(u) for u in expected.keys() | found.keys()),
        missing=len(expected_ids - seen.keys() - named),
        unexpected=len(seen.keys() - expected_ids),
        repeats=sum(seen.values()) - len(seen),
        out_of_order=out_of_order,
        named=len(named),
    )


class _Naming(msgspec.Struct):
    coalesced: Coalesced | None = None


def _names(record: ReadBack, owners: Mapping[tuple[int, int], bytes]) -> list[bytes]:
    """The ids of the outputs that this one stands for.

    Raises: AssertionError when the run is not as long as it says.
    """
    run = msgspec.json.decode(record.value or b"", type=_Naming).coalesced
    if run is None:
        return []
    # A topic's name may hold dashes too.
    topic, partition, offset, kind = _id(record).rsplit(b"-", 3)
    found = [at for at in range(run.first_offset, int(offset)) if owners.get((int(partition), at)) == record.key]
    assert run.plays == 1 + len(found), f"{_id(record)!r} names {run.plays} plays from {run.first_offset}: {found}"
    return [b"%b-%b-%d-%b" % (topic, partition, at, kind) for at in found]


def folded(settings: Settings, layout: EventLayout) -> States:
    """Every member's state as the naive fold of the plays topic has it."""
    oracle = _oracle(settings, layout)
    for record in read_all(settings, settings.plays_topic):
        oracle.add(as_naive(record))
    return _states(oracle, layout)


def restored(settings: Settings, layout: EventLayout) -> States:
    """Every member's state as the changelog has it, read committed by a client that is not ours."""
    return {
        (partition, user): product_state(history, layout)
        for partition, (histories, _) in _changelog(settings, layout).items()
        for user, history in histories.items()
        if history.count
    }


def _wait_until_committed(settings: Settings, layout: EventLayout, last_offsets: Mapping[int, int]) -> None:
    """Returns when the state covers the plays up to these offsets, by partition."""
    deadline_s = time.monotonic() + _COMMITTED_WITHIN_S
    while True:
        markers = _markers(settings, layout)
        behind = {at: (markers.get(at), last) for at, last in last_offsets.items() if markers.get(at, -1) <= last}
        if not behind:
            return
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no checkpoint covers the plays (partition: next offset, last play): {behind}")
        time.sleep(0.1)  # the topic is read whole each time: a checkpoint announces itself nowhere else


def _markers(settings: Settings, layout: EventLayout) -> dict[int, int]:
    """By partition, the first offset that is not in the state."""
    markers = {partition: marker for partition, (_, marker) in _changelog(settings, layout).items()}
    return {partition: marker.next_offset for partition, marker in markers.items() if marker is not None}


def _changelog(settings: Settings, layout: EventLayout) -> dict[int, tuple[dict[str, History], Marker | None]]:
    """By partition, the histories and the newest marker."""
    restorers: dict[int, Restorer] = defaultdict(lambda: Restorer(layout))
    for record in read_all(settings, settings.changelog_topic, "read_committed"):
        if record.key is not None:
            restorers[record.partition].feed(record.key, record.value)
    return {partition: restorer.finish() for partition, restorer in restorers.items()}


def _oracle(settings: Settings, layout: EventLayout) -> NaiveFold:
    any_partition = settings.plays_partitioner == "any"
    return naive_fold(layout.domain, None if any_partition else _num_partitions(settings, settings.plays_topic))


def _states(oracle: NaiveFold, layout: EventLayout) -> States:
    return {place: naive_state(oracle, member, layout.domain) for place, member in oracle.members.items()}


@dataclass(frozen=True, slots=True)
class ReadBack:
    """One record as confluent-kafka gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def as_naive(record: ReadBack) -> NaiveRecord:
    """The record as the naive fold takes it."""
    return NaiveRecord(record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


def read_all(settings: Settings, topic: str, isolation: str = "read_uncommitted") -> Iterator[ReadBack]:
    """Every record of a topic up to its ends as of now; each partition in order.

    Raises: AssertionError when the broker does not deliver them in time.
    """
    partitions = {(topic, partition) for partition in range(_num_partitions(settings, topic))}
    idle_s = 0.0
    with contextlib.closing(follow(settings.broker, partitions, isolation)) as polls:
        for records, unread in polls:
            yield from records
            if not unread:
                return
            idle_s = 0.0 if records else idle_s + POLL_S
            assert idle_s < _READ_DEADLINE_S, f"{topic} cannot be read to its end"


def follow(
    address: str, partitions: Collection[tuple[str, int]], isolation: str
) -> Generator[tuple[list[ReadBack], set[tuple[str, int]]], None, None]:
    """What comes next in the partitions of topics, again and again, and which have not been read to an end yet."""
    options = {
        "bootstrap.servers": address,
        "group.id": f"verdict-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "isolation.level": isolation,
        "enable.partition.eof": True,
        "fetch.message.max.bytes": 16_000_000,
        **_AT_ONCE,
        "log_level": 0,
    }
    consumer = confluent_kafka.Consumer(options)
    unread = set(partitions)
    try:
        consumer.assign([confluent_kafka.TopicPartition(*place, 0) for place in sorted(unread)])
        while True:
            records: list[ReadBack] = []
            for message in consumer.consume(2000, POLL_S):
                topic, partition, error = message.topic(), message.partition(), message.error()
                if error is None:
                    records.append(
                        ReadBack(
                            topic, partition, message.offset(), message.timestamp()[1], message.key(), message.value(),
                            tuple(message.headers() or ()),
                        )
                    )  # fmt: skip
                elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    unread.discard((topic, partition))
                else:
                    assert error.retriable(), str(error)
            yield records, unread
    finally:
        consumer.close()


def _num_partitions(settings: Settings, topic: str) -> int:
    admin = confluent_kafka.Consumer(
        {"bootstrap.servers": settings.broker, "group.id": f"verdict-{uuid.uuid4().hex}", "log_level": 0}
    )
    try:
        return len(admin.list_topics(topic, timeout=30).topics[topic].partitions)
    finally:
        admin.close()


def _id(record: ReadBack) -> bytes:
    return dict(record.headers)[ID_HEADER]
