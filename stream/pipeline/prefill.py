"""Members of whom much more than their new plays has to be encoded are answered behind the others, so many positions at a time.

    micro-batch ─ folded ─┬─ members whose earlier plays are cached ──▶ answered at once
                          └─ the others, beyond the bound ──▶ parts ──▶ one between two micro-batches, oldest first

A play of a member who is not cached, or whose anchor moves, costs a hundred times what it costs otherwise; a burst of them,
after a rebalance or a swap, would hold everybody up for as long as it lasts. All plays are folded in at once and in order. A
member who waits is answered in order too: as long as one part holds answers of them, newer ones go behind it, at no more than
what these cost by themselves.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from intentrec_core.engine.member_key import MemberKey
from stream.pipeline.folding import ContextRun, PartitionWork
from stream.pipeline.split import deal

#: Positions a new play. Appended ones cost 1, with their share of a short window's anchor moves, or a little late, 2.
_MUCH_MORE = 3


@dataclass(slots=True)
class PrefillChunk:
    """Runs of one micro-batch that are answered together. ``forgotten``: members who were forgotten while they waited."""

    works: list[PartitionWork]
    waves: list[list[ContextRun]]
    coalesced: bool
    members: set[MemberKey]
    forgotten: set[MemberKey] = field(default_factory=set)


class SlotCache(Protocol):
    """What is asked of an engine."""

    @property
    def num_slots(self) -> int:
        """Members who can be cached."""
        ...

    def caches(self, member: MemberKey) -> bool:
        """Whether a member's earlier plays are cached."""
        ...


class PrefillQueue:
    """Parts that wait, oldest first. Owned by the inference thread.

    A part has at most ``max_positions``, but for one member with more; 0: no bound. ``play_size`` is a packed play's.
    """

    def __init__(self, max_positions: int, play_size: int) -> None:
        self._max_positions, self._play_size = max_positions, play_size
        self._parts: deque[PrefillChunk] = deque()
        self._waiting: Counter[MemberKey] = Counter()

    def __len__(self) -> int:
        """Parts that wait."""
        return len(self._parts)

    def enqueue(
        self,
        works: Sequence[PartitionWork],
        waves: list[list[ContextRun]],
        cache: SlotCache,
        *,
        coalesced: bool,
    ) -> list[list[ContextRun]]:
        """Takes out of a micro-batch what has to wait, works included; returns the waves that are answered at once.

        Members with much more to encode than their new plays are answered at once where nobody waits and they keep to the bound.

        Cost: O(runs and answers of the micro-batch).
        """
        if not self._max_positions or not waves:
            return waves
        positions = self._positions(waves, cache)
        if not positions or (not self._parts and sum(positions.values()) <= self._max_positions):
            return waves
        part_of = self._cut(positions)
        at_once, shares = deal(works, waves, part_of.get)
        parts = [
            PrefillChunk(shares[n].works, shares[n].waves, coalesced, set()) for n in range(1 + max(part_of.values()))
        ]
        for member, number in part_of.items():
            parts[number].members.add(member)
        self._parts.extend(parts)
        self._waiting.update(part_of.keys())
        return at_once

    def next(self) -> PrefillChunk:
        """Takes the oldest part out."""
        part = self._parts.popleft()
        self._waiting -= Counter(part.members)
        return part

    def members(self) -> set[MemberKey]:
        """Who waits."""
        return set(self._waiting)

    def forget(self, member: MemberKey) -> None:
        """What is derived from the member's answers that still wait must not stay."""
        if self._waiting[member]:
            for part in self._parts:
                if member in part.members:
                    part.forgotten.add(member)

    def drop(self, partition: int) -> None:
        """Nothing of a partition is answered any more. Its parts stay, so that they can be counted."""
        for part in self._parts:
            part.works = [work for work in part.works if work.result.partition != partition]
            part.waves = [kept for runs in part.waves if (kept := [r for r in runs if r.member.partition != partition])]
            gone = {member for member in part.members if member.partition == partition}
            part.members -= gone
            self._waiting -= Counter(gone)

    def _positions(self, waves: Sequence[Sequence[ContextRun]], cache: SlotCache) -> dict[MemberKey, int]:
        """What there is to encode of each member who waits already, or of whom it is much more than their new plays."""
        # Others play meanwhile: where more than half of the slots were needed, somebody has lost theirs when it is their turn.
        all_stay = 2 * len(self._waiting) <= cache.num_slots
        positions: Counter[MemberKey] = Counter()
        num_plays: Counter[MemberKey] = Counter()
        for runs in waves:
            for run in runs:
                # Who waits will be cached when it is their turn, and so is whoever had a run before in this micro-batch.
                cached = run.member in positions or (self._waiting[run.member] and all_stay) or cache.caches(run.member)
                positions[run.member] += len(run.context) // self._play_size - (run.first_changed if cached else 0)
                num_plays[run.member] += run.num_outputs
        return {
            member: num
            for member, num in positions.items()
            if self._waiting[member] or num > _MUCH_MORE * num_plays[member]
        }

    def _cut(self, positions: Mapping[MemberKey, int]) -> dict[MemberKey, int]:
        """The part each member goes into."""
        part_of: dict[MemberKey, int] = {}
        number, room = -1, 0
        for member, num in positions.items():
            if number < 0 or num > room:
                number, room = number + 1, self._max_positions
            part_of[member] = number
            room -= num
        return part_of
