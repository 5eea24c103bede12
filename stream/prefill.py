"""Members whose whole context has to be encoded are answered behind the others, so many positions at a time.

    micro-batch ─ folded ─┬─ members with cached keys and values ──▶ answered at once
                          └─ the others, beyond the bound ──▶ parts ──▶ one between two micro-batches, oldest first

A play of a member who is not cached costs a hundred times what it costs otherwise; a burst of them, after a rebalance or a swap,
would hold everybody up for as long as it lasts. All plays are folded in at once and in order. A member who waits is answered
in order too: as long as one part holds answers of them, newer ones go behind it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stream.folding import Answer, PartitionWork, Run
from stream.records import OutputRecord, PartitionResult


@dataclass(slots=True)
class Part:
    """Runs of one micro-batch that are answered together. ``forgotten``: members who were forgotten while they waited."""

    works: list[PartitionWork]
    rounds: list[list[Run]]
    coalesced: bool
    members: set[str]
    forgotten: set[str] = field(default_factory=set)


class HeldBack:
    """Parts that wait, oldest first. Owned by the inference thread.

    A part has at most ``max_positions``, but for one context that is longer; 0: no bound. ``play_size`` is a packed play's.
    """

    def __init__(self, max_positions: int, play_size: int) -> None:
        self._max_positions, self._play_size = max_positions, play_size
        self._parts: deque[Part] = deque()
        self._waiting: Counter[str] = Counter()

    def __len__(self) -> int:
        """Parts that wait."""
        return len(self._parts)

    def hold_back(
        self, works: Sequence[PartitionWork], rounds: list[list[Run]], *, cold: Callable[[str], bool], coalesced: bool
    ) -> list[list[Run]]:
        """Takes out of a micro-batch what has to wait, works included; returns the rounds that are answered at once.

        Members who are ``cold`` are answered at once where nobody waits and all of them keep to the bound.
        """
        if not self._max_positions or not rounds:
            return rounds
        waits = [run for run in rounds[0] if self._waiting[run.member] or cold(run.member)]
        if not self._parts and sum(self._positions(run) for run in waits) <= self._max_positions:
            return rounds
        for members in self._cut(waits):
            of_part = [[run for run in runs if run.member in members] for runs in rounds]
            later = [_taken(work, members) for work in works]
            self._parts.append(Part(later, [runs for runs in of_part if runs], coalesced, members))
            self._waiting.update(members)
        held = {run.member for run in waits}
        return [kept for runs in rounds if (kept := [run for run in runs if run.member not in held])]

    def next(self) -> Part:
        """Takes the oldest part out."""
        part = self._parts.popleft()
        self._waiting -= Counter(part.members)
        return part

    def forget(self, member: str) -> None:
        """What is derived from the member's answers that still wait must not stay."""
        if self._waiting[member]:
            for part in self._parts:
                if member in part.members:
                    part.forgotten.add(member)

    def drop(self, partition: int) -> None:
        """Nothing of a partition is answered any more. Its parts stay, so that they can be counted."""
        for part in self._parts:
            part.works = [work for work in part.works if work.result.partition != partition]
            part.rounds = [
                kept for runs in part.rounds if (kept := [r for r in runs if not r.member.startswith(f"{partition}/")])
            ]

    def _positions(self, run: Run) -> int:
        return len(run.context) // self._play_size

    def _cut(self, runs: Sequence[Run]) -> list[set[str]]:
        cut: list[set[str]] = []
        room = 0
        for run in runs:
            num = self._positions(run)
            if not cut or num > room:
                cut.append(set())
                room = self._max_positions
            cut[-1].add(run.member)
            room -= num
        return cut


def _taken(work: PartitionWork, members: set[str]) -> PartitionWork:
    """A work of its own with the answers of ``members``, taken out of ``work``."""
    later: list[OutputRecord | Answer] = [p for p in work.pending if isinstance(p, Answer) and p.run.member in members]
    work.pending = [p for p in work.pending if not isinstance(p, Answer) or p.run.member not in members]
    return PartitionWork(PartitionResult(work.result.partition, work.result.next_offset, 0), later)
