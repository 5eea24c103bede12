"""The guarantee as an oracle, checked at every instant: what is committed is exactly a fold of the plays before it.

Each play is answered, or named by an answer to a later play of its member. The oracle is the naive fold, which shares nothing
with the workers'; it takes each play when it is produced. It reads the logs, not the workers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from intentrec_core.history.changelog_codec import Marker, Restorer
from stream.wire.erasure_record import CONTROL_HEADER, FORGET
from stream.wire.records import ID_HEADER
from tests.property.scripted_broker import Entry, Log, is_committed
from tests.worlds.expected_outputs import expected_outputs
from tests.worlds.member_state import MemberState, naive_fold, naive_state, product_state
from tests.worlds.naive_fold import NaiveRecord, partition_of
from tests.worlds.tiny_world import START_MS

if TYPE_CHECKING:
    from tests.property.scripted_worker import World

Fold = dict[str, MemberState]


class Guarantee:
    """Produces plays and knows which outputs they must have; ``check`` holds at any instant, ``check_end`` when all is quiet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._settings = world.settings
        self._layout = world.layout
        num = world.broker.num_partitions
        self._oracle = naive_fold(world.layout.domain, num)
        #: Of each partition, the state after so many plays.
        self._folds: list[list[Fold]] = [[{}] for _ in range(num)]
        self._expected: list[list[set[bytes]]] = [[] for _ in range(num)]
        #: What may be seen besides: without transactions a replay answers plays that were duplicates or
        #: late (docs/operations.md).
        self._tolerated: set[bytes] = set()
        #: Of each partition, whose play is at an offset, if it must be answered.
        self._answered: list[list[bytes | None]] = [[] for _ in range(num)]
        #: By user, the numbers of the plays sent, which their event ids name.
        self._events: defaultdict[int, list[int]] = defaultdict(list)
        self._highest: Counter[int] = Counter()
        self._ends = [0] * num
        self.num_plays = 0
        world.broker.on_checkpoint = self._check_at_checkpoint

    def produce(self, user: int, *, event: int | None = None, late_s: float = 0.0, value: bytes | None = None) -> None:
        """One more play: of a user, with the id of an earlier one, ``late_s`` seconds back, or bytes that are no play."""
        number = self.num_plays
        self.num_plays += 1
        if event is None:
            self._events[user].append(number)
        user_id = f"u{user}"
        play = {
            "event_id": f"e{number if event is None else event}",
            "user_id": user_id,
            "item_id": f"i{number % 7}",
            "ts": START_MS + 1000 * number - int(1000 * late_s),
        }
        content = json.dumps(play).encode() if value is None else value
        self._append(user_id.encode(), START_MS + 1000 * number, content, ())

    def repeat(self, user: int) -> None:
        """A play with the id of one of the user's last plays, the newest or not."""
        sent = self._events[user]
        self.produce(user, event=sent[-(1 + self.num_plays % 4) % len(sent)] if sent else None)

    def forget(self, user: int) -> None:
        """An erasure request."""
        at_ms = START_MS + 1000 * self.num_plays
        self._append(f"u{user}".encode(), at_ms, None, ((CONTROL_HEADER, FORGET),))

    def _append(self, key: bytes, at_ms: int, value: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> None:
        partition = partition_of(key, self._world.broker.num_partitions)
        log = self._world.broker.log(self._settings.plays_topic, partition)
        log.append([(at_ms, key, value, headers)], None)
        record = log.entries[-1]
        self._ends[partition] = log.end
        outcome, _ = self._oracle.add(NaiveRecord(partition, record.offset, at_ms, key, value, headers))
        user, fold = key.decode(), dict(self._folds[partition][-1])
        member = self._oracle.members.get((partition, user))
        if member is None:
            fold.pop(user, None)
        else:
            fold[user] = naive_state(self._oracle, member, self._layout.domain)
        self._folds[partition].append(fold)
        self._expected[partition].append(set(expected_outputs(record, outcome)))
        self._answered[partition].append(key if outcome == "applied" else None)
        if outcome in ("duplicate", "late") and not self._world.transactional:
            self._tolerated.update(expected_outputs(record, "applied"))

    def leave_a_gap(self, partition: int) -> None:
        """An offset that no subscriber is given: a producer's transaction ended there."""
        self._world.broker.log(self._settings.plays_topic, partition).end += 1
        self._folds[partition].append(self._folds[partition][-1])
        self._expected[partition].append(set())
        self._answered[partition].append(None)

    @property
    def caught_up(self) -> bool:
        """Whether every play is in the committed state, and none would be replayed onto it."""
        for partition, end in enumerate(self._ends):
            _, marker = self._restored(partition)
            reached = 0 if marker is None else marker.next_offset
            if min(reached, self._world.broker.offsets.get(partition, reached)) < end:
                return False
        return True

    def check(self) -> None:
        """What is committed: the state a fold of the plays before the offset, and all of their outputs there."""
        seen, named = self._seen(), self.named()
        for partition, folds in enumerate(self._folds):
            committed = self._world.broker.offsets.get(partition, 0)
            histories, marker = self._restored(partition)
            where = f"partition {partition} at {committed}"
            assert committed >= self._highest[partition], f"{where}: offsets went back from {self._highest[partition]}"
            self._highest[partition] = committed
            assert (0 if marker is None else marker.next_offset) >= committed, f"{where}: offset before state"
            if self._world.transactional:
                assert (0 if marker is None else marker.next_offset) == committed, f"{where}: marker {marker}"
                assert histories == folds[committed], f"{where}: another state"
            else:
                self._check_each(partition, histories, committed)
            expected = set[bytes]().union(*self._expected[partition][:committed])
            missing = expected - seen.keys() - named.keys()
            assert not missing, f"{where}: committed without outputs {sorted(missing)}"
        assert seen.keys() <= self._all_expected() | self._tolerated, "no record has these outputs"
        if self._world.settings.delivery == "exactly_once":
            assert set((seen + named).values()) <= {1}, "a subscriber of what is committed is answered a play twice"

    def _check_at_checkpoint(self) -> None:
        """A failure is raised by World.run, too: in the worker's own task it may only look like a worker that hangs."""
        try:
            self.check()
        except AssertionError as error:
            self._world.loop.call_soon(_raise, error)
            raise

    def check_end(self) -> None:
        """Everything is committed and answered; after removing repeats, a subscriber sees each user's in source order."""
        self.check()
        assert self.caught_up
        assert (self._seen().keys() | self.named().keys()) - self._tolerated == self._all_expected()
        for partition, folds in enumerate(self._folds):
            assert self._restored(partition)[0] == folds[-1]
        assert not self.out_of_order(), "an output came for the first time behind a later one of its user"

    def out_of_order(self) -> list[bytes]:
        """Outputs whose first appearance is behind a later one of the same user, and that none had named by then."""
        behind = []
        newest: defaultdict[tuple[str, bytes | None], int] = defaultdict(lambda: -1)
        known = set(
            self._tolerated
        )  # a subscriber leaves them out, as what lies below the user's highest source offset
        for entry in self._answers():
            name = _id(entry)
            _, _, offset, kind = name.decode().rsplit("-", 3)
            if name not in known and int(offset) < newest[kind, entry.key]:
                behind.append(name)
            known |= {name, *self._names(entry)}
            newest[kind, entry.key] = max(newest[kind, entry.key], int(offset))
        return behind

    def named(self) -> Counter[bytes]:
        """Outputs that are not needed, because one of a later play stands for them, and how many do."""
        return Counter(name for entry in self._answers() for name in self._names(entry))

    def _answers(self) -> Iterator[Entry]:
        for topic in (self._settings.recommendations_topic, self._settings.intents_topic):
            for log in self._world.broker.topic(topic):
                yield from filter(is_committed, log.entries)

    def _names(self, entry: Entry) -> list[bytes]:
        """The ids of the outputs that this one stands for."""
        assert entry.value is not None
        coalesced = json.loads(entry.value).get("coalesced") if b"coalesced" in entry.value else None
        if coalesced is None:
            return []
        topic, partition, offset, kind = _id(entry).decode().rsplit("-", 3)
        owners = self._answered[int(partition)]
        covered = range(coalesced["first_offset"], int(offset))
        found = [f"{topic}-{partition}-{at}-{kind}".encode() for at in covered if owners[at] == entry.key]
        most = len(found) + sum(f"{topic}-{partition}-{at}-{kind}".encode() in self._tolerated for at in covered)
        assert len(found) < coalesced["plays"] <= 1 + most, f"{coalesced} names {found}"
        return found

    def _check_each(self, partition: int, histories: Fold, committed: int) -> None:
        # Without transactions the state may be ahead of the offset, each member's by itself; never behind, never anything else.
        folds = self._folds[partition]
        for user, history in histories.items():
            assert history == folds[history.last_offset + 1].get(user), f"{user}: another state"
        for user, history in folds[committed].items():
            if user in histories:
                assert histories[user].last_offset >= history.last_offset, f"{user}: plays are lost"
            else:
                assert any(user not in fold for fold in folds[committed:]), f"{user} is lost"

    def _restored(self, partition: int) -> tuple[Fold, Marker | None]:
        restorer = Restorer(self._layout)
        log = self._world.broker.log(self._settings.changelog_topic, partition)
        for entry in filter(is_committed, log.entries):
            assert entry.key is not None
            restorer.feed(entry.key, entry.value)
        histories, marker = restorer.finish()
        return {
            user: product_state(history, self._layout) for user, history in histories.items() if history.count
        }, marker

    def _seen(self) -> Counter[bytes]:
        settings = self._settings
        topics = (
            settings.recommendations_topic,
            settings.intents_topic,
            settings.dead_letter_topic,
            settings.late_topic,
        )
        logs: list[Log] = [log for topic in topics for log in self._world.broker.topic(topic)]
        return Counter(_id(entry) for log in logs for entry in log.entries if is_committed(entry))

    def _all_expected(self) -> set[bytes]:
        return set[bytes]().union(*(expected for partition in self._expected for expected in partition))


def _id(entry: Entry) -> bytes:
    return dict(entry.headers)[ID_HEADER]


def _raise(error: AssertionError) -> None:
    raise error
