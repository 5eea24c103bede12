"""Queue for members who need a full prefill: answered after all others, a bounded number of positions at a time.

    micro-batch ─ folded ─┬─ members whose earlier plays are cached ──▶ answered at once
                          └─ other members, beyond the bound ──▶ chunks ──▶ one between two micro-batches, oldest first

A play of a member who is not cached, or whose anchor moves, costs a hundred times what it costs otherwise. A burst of such plays,
after a rebalance or a swap, would delay every member for as long as it lasts. All plays are folded at once and in order. A queued
member is answered in order too: while a chunk holds answers of a member, its newer plays are queued after that chunk, at no
more than what they cost by themselves.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from intentrec_core.engine.member_key import MemberKey
from stream.pipeline.folding import ContextRun, FoldedBatch
from stream.pipeline.split import split_by_member

#: Positions for each new play. An appended play costs 1; about 2 if it is slightly out of order, or if a short window's anchor
#: moves are counted in.
_PREFILL_RATIO = 3


@dataclass(slots=True)
class PrefillChunk:
    """Answers of one micro-batch that are encoded together.

    ``members`` whose answers it holds; ``forgotten``: those of them who were forgotten while the chunk was queued.
    """

    batch: FoldedBatch
    members: set[MemberKey]
    forgotten: set[MemberKey] = field(default_factory=set)


class SlotCache(Protocol):
    """The part of an engine that is needed here."""

    @property
    def num_slots(self) -> int:
        """Members who can be cached whatever their contexts hold; where they are short, more can be."""
        ...

    def caches(self, member: MemberKey) -> bool:
        """Whether a member's earlier plays are cached."""
        ...


class PrefillQueue:
    """Chunks, oldest first. Owned by the inference thread.

    A chunk has at most ``max_positions``, unless a single member needs more; 0 is no bound. ``play_size`` is the size of a
    packed play in bytes.
    """

    def __init__(self, max_positions: int, play_size: int) -> None:
        self._max_positions, self._play_size = max_positions, play_size
        self._chunks: deque[PrefillChunk] = deque()
        #: How many chunks hold answers of a member.
        self._waiting: Counter[MemberKey] = Counter()

    def __len__(self) -> int:
        """Chunks in the queue."""
        return len(self._chunks)

    def enqueue(self, batch: FoldedBatch, cache: SlotCache) -> FoldedBatch:
        """Takes out of a micro-batch what has to wait; returns what is answered at once, with all records.

        Members with much more to encode than their new plays are answered at once where the queue is empty and they keep to the
        bound.

        Cost: O(runs and answers of the micro-batch).
        """
        if not self._max_positions or not batch.waves:
            return batch
        positions = self._positions(batch.waves, cache)
        if not positions or (not self._chunks and sum(positions.values()) <= self._max_positions):
            return batch
        chunk_of = self._assign(positions)
        at_once, slices = split_by_member(batch, chunk_of.get)
        chunks = [PrefillChunk(slices[number], set()) for number in range(1 + max(chunk_of.values()))]
        for member, number in chunk_of.items():
            chunks[number].members.add(member)
        self._chunks.extend(chunks)
        self._waiting.update(chunk_of.keys())
        return at_once

    def next(self) -> FoldedBatch:
        """Takes the oldest chunk out."""
        chunk = self._chunks.popleft()
        self._waiting -= Counter(chunk.members)
        return replace(chunk.batch, forgotten=frozenset(chunk.forgotten))

    def members(self) -> set[MemberKey]:
        """Members with queued answers."""
        return set(self._waiting)

    def forget(self, member: MemberKey) -> None:
        """Notes that nothing derived from a member's queued answers may stay once they are answered."""
        if self._waiting[member]:
            for chunk in self._chunks:
                if member in chunk.members:
                    chunk.forgotten.add(member)

    def drop(self, partition: int) -> None:
        """Drops the answers of a partition. Its chunks stay, empty if need be, because their number was reported."""
        for chunk in self._chunks:
            waves = [[run for run in runs if run.member.partition != partition] for runs in chunk.batch.waves]
            chunk.batch = replace(
                chunk.batch,
                partitions=[folded for folded in chunk.batch.partitions if folded.partition != partition],
                waves=[runs for runs in waves if runs],
            )
            gone = {member for member in chunk.members if member.partition == partition}
            chunk.members -= gone
            self._waiting -= Counter(gone)

    def _positions(self, waves: Sequence[Sequence[ContextRun]], cache: SlotCache) -> dict[MemberKey, int]:
        """Positions to encode, for each member who is queued already or needs much more than its new plays."""
        # Other members play meanwhile: where the queue needs more than half of the slots, a queued member can lose its place
        # before its turn.
        all_stay = 2 * len(self._waiting) <= cache.num_slots
        positions: Counter[MemberKey] = Counter()
        num_plays: Counter[MemberKey] = Counter()
        for runs in waves:
            for run in runs:
                # A queued member will be cached when its turn comes; so will one with an earlier run in this micro-batch.
                cached = run.member in positions or (self._waiting[run.member] and all_stay) or cache.caches(run.member)
                positions[run.member] += len(run.context) // self._play_size - (run.first_changed if cached else 0)
                num_plays[run.member] += run.num_outputs
        return {
            member: num
            for member, num in positions.items()
            if self._waiting[member] or num > _PREFILL_RATIO * num_plays[member]
        }

    def _assign(self, positions: Mapping[MemberKey, int]) -> dict[MemberKey, int]:
        """The chunk that each member goes into."""
        chunk_of: dict[MemberKey, int] = {}
        number, capacity = -1, 0
        for member, num in positions.items():
            if number < 0 or num > capacity:
                number, capacity = number + 1, self._max_positions
            chunk_of[member] = number
            capacity -= num
        return chunk_of
