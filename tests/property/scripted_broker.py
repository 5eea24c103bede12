"""A broker in memory that fails where it is told to: the twin of the fault tests, without processes and without waiting.

Every call of the worker that a real broker could fail is a numbered step. A step can fail before it has any effect, or
after it had its full effect (the answer was lost), which is the case that makes exactly-once hard.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from intentrec_core.changelog_codec import MARKER_KEY, Marker, Restorer
from intentrec_core.errors import Fenced
from intentrec_core.history import EventLayout
from stream.changelog import Cut
from stream.partition import Membership
from stream.publisher import Receipt
from stream.records import OutputRecord
from stream.recovery import Restored
from stream.start_offset import SourceFacts


class Injected(Exception):
    """The failure that was asked for."""


@dataclass(frozen=True)
class Play:
    """A record of the plays topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass
class ScriptedBroker:
    """Plays, changelog, offsets and fences of a few partitions. ``script`` says which steps fail: before or after."""

    layout: EventLayout
    num_partitions: int
    script: dict[int, str] = field(default_factory=dict)
    plays: dict[int, list[Play]] = field(default_factory=dict)
    changelog: dict[int, dict[bytes, bytes | None]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    epochs: Counter[int] = field(default_factory=Counter)
    answered: Counter[bytes] = field(default_factory=Counter)
    positions: dict[int, int] = field(default_factory=dict)
    num_steps: int = 0
    steps: list[str] = field(default_factory=list)

    def fill(self, num_plays: int, num_users: int) -> None:
        for number in range(num_plays):
            partition = number % num_users % self.num_partitions
            log = self.plays.setdefault(partition, [])
            play = {
                "event_id": f"e{number}",
                "user_id": f"u{number % num_users}",
                "item_id": "i",
                "ts": 10**12 + number,
            }
            key = play["user_id"].encode()  # type: ignore[union-attr]
            log.append(Play("plays", partition, len(log), 10**12 + number, key, json.dumps(play).encode()))

    async def step(self, name: str, effect: Callable[[], None] = lambda: None) -> None:
        """One call to the broker."""
        number, self.num_steps = self.num_steps, self.num_steps + 1
        self.steps.append(name)
        await asyncio.sleep(0)
        if self.script.get(number) == "before":
            raise Injected(f"{name} failed (step {number})")
        effect()
        if self.script.get(number) == "after":
            raise Injected(f"the answer to {name} was lost (step {number})")

    # --- the source

    async def source_facts(self, partition: int) -> SourceFacts:
        await self.step("facts")
        end = len(self.plays.get(partition, []))
        return SourceFacts(
            committed=self.committed.get(partition), beginning=0, end=end, num_partitions=self.num_partitions
        )

    async def seek_source(self, partition: int, offset: int) -> None:
        await self.step("seek", lambda: self.positions.__setitem__(partition, offset))

    async def commit_source(self, partition: int, offset: int) -> bool:
        raise NotImplementedError

    async def source_positions(self, partitions: set[int]) -> dict[int, tuple[int, int]]:
        return {}

    async def membership(self, partition: int) -> Membership:
        return Membership.YES

    async def restore(self, partition: int) -> Restored:
        await self.step("restore")
        restorer = Restorer(self.layout)
        for key, value in self.changelog.get(partition, {}).items():
            restorer.feed(key, value)
        histories, marker = restorer.finish()
        return Restored(histories, marker, 0, 0, 0.0)

    def fetch(self, partition: int, num: int) -> list[Play]:
        start = self.positions[partition]
        fetched = self.plays.get(partition, [])[start : start + num]
        self.positions[partition] = start + len(fetched)
        return fetched

    # --- outputs

    def publish(self, outputs: list[OutputRecord]) -> Receipt:
        receipt = Receipt(len(outputs))

        def effect() -> None:
            for output in outputs:
                self.answered[dict(output.headers)["intentrec-id"]] += 1

        async def send() -> None:
            try:
                await self.step("publish", effect)
            except Injected as error:
                receipt.fail(error)
            else:
                receipt.settle(len(outputs))

        if outputs:
            self._sending = asyncio.ensure_future(send())
        return receipt


class ScriptedWriter:
    """A changelog writer on the scripted broker: a fence by epoch, a cut at once or not at all."""

    def __init__(self, broker: ScriptedBroker, partition: int, marker: Callable[[int], Marker]) -> None:
        self._broker, self._partition, self._marker = broker, partition, marker
        self._epoch = -1

    async def open(self) -> None:
        def fence() -> None:
            self._broker.epochs[self._partition] += 1
            self._epoch = self._broker.epochs[self._partition]

        await self._broker.step("open", fence)

    async def commit(self, cut: Cut) -> None:
        def write() -> None:
            if self._epoch != self._broker.epochs[self._partition]:
                raise Fenced("a newer owner")
            log = self._broker.changelog.setdefault(self._partition, {})
            log.update(cut.changes)
            log[MARKER_KEY] = self._marker(cut.next_offset).encode()
            self._broker.committed[self._partition] = cut.next_offset

        await self._broker.step("commit", write)

    async def close(self) -> None:
        pass
