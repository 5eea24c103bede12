"""The consumer group of the scripted broker: members, generations, a join that waits for everyone, and expulsion."""

from __future__ import annotations

import asyncio
from enum import Enum

SESSION_TIMEOUT_S, REBALANCE_TIMEOUT_S = 6.0, 10.0


class Heartbeat(Enum):
    """A heartbeat's answer."""

    OK = "ok"
    REBALANCE = "rebalance in progress"
    UNKNOWN = "unknown member or generation"


class ScriptedGroup:
    """Rebalances eagerly: everyone gives everything up, joins, and is told what is theirs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, num_partitions: int) -> None:
        self.generation = 0
        self._loop = loop
        self._num_partitions = num_partitions
        self._members: dict[str, float] = {}
        self._joined: dict[str, asyncio.Future[tuple[int, set[int]]]] = {}
        self._deadline: asyncio.TimerHandle | None = None

    async def join(self, member: str) -> tuple[int, set[int]]:
        """Generation and partitions, once every member has joined or was expelled for not joining."""
        self._members[member] = self._loop.time()
        answer = self._joined[member] = self._loop.create_future()
        self._begin()
        return await answer

    def heartbeat(self, member: str, generation: int) -> Heartbeat:
        """Keeps a member in."""
        now_s = self._loop.time()
        # While members rejoin, only the rebalance timeout counts.
        for coalesced_away in [
            m for m, at_s in self._members.items() if now_s - at_s > SESSION_TIMEOUT_S and not self._deadline
        ]:
            self.leave(coalesced_away)
        if not self.knows(member, generation):
            return Heartbeat.UNKNOWN
        self._members[member] = now_s
        return Heartbeat.REBALANCE if self._deadline else Heartbeat.OK

    def knows(self, member: str, generation: int) -> bool:
        """Whether what the member does now is done for the group's present generation."""
        return member in self._members and generation == self.generation

    def leave(self, member: str) -> None:
        """Of its own will, or expelled: the others share its partitions out."""
        self._joined.pop(member, None)
        if self._members.pop(member, None) is not None and self._members:
            self._begin()

    def rebalance(self) -> None:
        """Has everybody rejoin."""
        if self._members:
            self._begin()

    def _begin(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(REBALANCE_TIMEOUT_S, self._finish)
        if self._joined.keys() >= self._members.keys():
            self._finish()

    def _finish(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        for absent in self._members.keys() - self._joined.keys():
            del self._members[absent]
        self.generation += 1
        members, now_s = sorted(self._joined), self._loop.time()
        for number, member in enumerate(members):
            # Turned by one each generation, so that partitions move.
            mine = {p for p in range(self._num_partitions) if (p + self.generation) % len(members) == number}
            self._members[member] = now_s
            if not self._joined[member].done():
                self._joined[member].set_result((self.generation, mine))
        self._joined.clear()
