"""A Kafka in memory that fails on command: the twin of the fault tests, without processes and without waiting.

It keeps what exactly-once rests on: logs with open, prepared, committed and aborted transactions and the last stable offset;
transactional ids with epochs, of which only the newest may write; a group with generations that a member can be expelled from;
offsets that become visible when their transaction is complete, and not when its end was asked for.

Every call of a worker is a numbered step with a fate. A request that left a process arrives, whatever becomes of the process.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka.errors import KafkaError, ProducerFenced

if TYPE_CHECKING:
    from tests.property.scripted_worker import ScriptedProcess

T = TypeVar("T")

#: Long enough that the one who asked has given up and somebody else has taken over.
LATE_S = 30.0


class Injected(KafkaError):  # aiokafka is untyped
    """The failure that was asked for."""


class Fate(Enum):
    """What becomes of one step."""

    FAILS = "fails"  # no effect
    ANSWER_LOST = "answer lost"  # effect, and the caller is told that it failed
    LATE = "late"  # the caller is told that it failed, and it takes effect long after
    CRASH_BEFORE = "crash before"  # the process is killed, no effect
    CRASH_AFTER = "crash after"  # the process is killed, the effect comes all the same


#: Asked for the number of a step, its name and whose it is.
FateOf = Callable[[int, str, "ScriptedProcess"], Fate | None]


@dataclass
class Transaction:
    """Of one epoch of a transactional id. ``offsets`` are committed with it."""

    state: str = "open"  # prepared, committed, aborted
    offsets: dict[int, int] = field(default_factory=dict)
    logs: list[Log] = field(default_factory=list)

    @property
    def undecided(self) -> bool:
        """Whether readers of what is committed have to wait for it."""
        return self.state in ("open", "prepared")


@dataclass(frozen=True)
class Entry:
    """One record of a log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    transaction: Transaction | None = None


class Log:
    """One partition of a topic. A transaction's end takes an offset too, as its control record does."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.entries: list[Entry] = []
        self.end = 0

    def append(
        self, records: list[tuple[int, bytes | None, bytes | None, Any]], transaction: Transaction | None
    ) -> None:
        """Adds records: timestamp, key, value, headers."""
        if transaction is not None and self not in transaction.logs:
            transaction.logs.append(self)
        for timestamp, key, value, headers in records:
            entry = Entry(self.topic, self.partition, self.end, timestamp, key, value, tuple(headers), transaction)
            self.entries.append(entry)
            self.end += 1

    @property
    def stable_end(self) -> int:
        """The last stable offset: nothing before it is undecided."""
        return next((e.offset for e in self.entries if e.transaction and e.transaction.undecided), self.end)

    def read(self, start: int, limit: int, *, committed: bool) -> list[Entry]:
        """The next records from ``start`` on, as a subscriber of that isolation is given them."""
        end = self.stable_end if committed else self.end
        return [e for e in self.entries if start <= e.offset < end and (not committed or is_committed(e))][:limit]

    def compact(self) -> None:
        """Keeps the last committed record of each key, but for tombstones, and everything that is not decided."""
        stable = self.stable_end
        last = {e.key: e for e in self.entries if e.offset < stable and is_committed(e)}
        self.entries = [e for e in self.entries if e.offset >= stable or (last.get(e.key) is e and e.value is not None)]


def is_committed(entry: Entry) -> bool:
    """Whether a read_committed subscriber may see it."""
    return entry.transaction is None or entry.transaction.state == "committed"


class ScriptedBroker:
    """Logs, transactions, offsets and steps. ``fate`` is asked what becomes of each step; None: it goes well."""

    def __init__(self, seed: int, num_partitions: int) -> None:
        self.rng = random.Random(seed)
        self.num_partitions = num_partitions
        self.logs: dict[tuple[str, int], Log] = {}
        self.offsets: dict[int, int] = {}
        self.fate: FateOf = lambda number, name, process: None
        self.steps: list[str] = []
        self.fates: list[str] = []
        #: Called whenever committed state or offsets became another.
        self.on_checkpoint: Callable[[], None] = lambda: None
        self._epochs: Counter[str] = Counter()
        self._transactions: dict[str, Transaction] = {}
        self._arrivals: defaultdict[object, float] = defaultdict(float)

    def log(self, topic: str, partition: int) -> Log:
        """A partition's log, made when it is first asked for."""
        return self.logs.setdefault((topic, partition), Log(topic, partition))

    def topic(self, name: str) -> Iterator[Log]:
        """A topic's partitions."""
        return (log for (topic, _), log in sorted(self.logs.items()) if topic == name)

    async def call(self, process: ScriptedProcess, name: str, effect: Callable[[], T], *, connection: object) -> T:
        """One request and its answer. Requests of a connection arrive in the order in which they were made."""
        await process.running()
        loop = asyncio.get_running_loop()
        fate = self.fate(len(self.steps), name, process)
        self.steps.append(name)
        if fate is not None:
            self.fates.append(f"{len(self.steps) - 1} {name} of {process.name}: {fate.value}")
        if fate is Fate.FAILS:
            await asyncio.sleep(self._while())
            raise Injected(self.fates[-1])
        if fate is Fate.CRASH_BEFORE:
            process.kill()
            raise asyncio.CancelledError
        answer: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            try:
                result = effect()
            except KafkaError as error:
                loop.call_later(self._while(), _answer, answer, error, None)
            else:
                loop.call_later(self._while(), _answer, answer, None, result)

        if fate is Fate.LATE:
            loop.call_later(LATE_S, arrive)
            raise Injected(self.fates[-1])
        self._arrivals[connection] = max(loop.time() + self._while(), self._arrivals[connection] + 1e-6)
        loop.call_at(self._arrivals[connection], arrive)
        if fate is Fate.CRASH_AFTER:
            process.kill()
            raise asyncio.CancelledError
        answered = await answer
        await process.running()
        if fate is Fate.ANSWER_LOST:
            raise Injected(self.fates[-1])
        return answered

    def _while(self) -> float:
        return self.rng.choice((0.0, 0.001, 0.003, 0.02, 0.1))

    # --- transactions

    def init_producer_id(self, name: str) -> int:
        """A new epoch: what the one before had prepared is completed, what it had open is aborted."""
        before = self._transactions.pop(name, None)
        if before is not None and before.undecided:
            self._complete(before, "committed" if before.state == "prepared" else "aborted")
        self._epochs[name] += 1
        return self._epochs[name]

    def transaction(self, name: str, epoch: int) -> Transaction:
        """The open transaction of a transactional id; one that was prepared is completed first, as Kafka makes its producer wait.

        Raises: ProducerFenced for an old epoch.
        """
        if epoch != self._epochs[name]:
            raise ProducerFenced
        open_one = self._transactions.get(name)
        if open_one is not None and open_one.state == "prepared":
            self._complete(open_one, "committed")
        if open_one is None or not open_one.undecided:
            open_one = self._transactions[name] = Transaction()
        return open_one

    def end_transaction(self, name: str, epoch: int) -> None:
        """Prepares the commit; it is complete, and visible, a while later. Raises: ProducerFenced for an old epoch."""
        ending = self.transaction(name, epoch)
        ending.state = "prepared"
        # Its markers are on their way to the leaders: usually milliseconds, but nothing bounds it.
        later_s = self.rng.choice((0.0, 0.01, 0.5, 5.0))
        asyncio.get_running_loop().call_later(later_s, self._complete, ending, "committed")

    def _complete(self, transaction: Transaction, state: str) -> None:
        if not transaction.undecided:
            return
        transaction.state = state
        for log in transaction.logs:
            log.end += 1
        if state == "committed":
            self.offsets |= transaction.offsets
            self.on_checkpoint()


def _answer(answer: asyncio.Future[Any], error: Exception | None, result: object) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
