"""Taking some members' runs and answers out of a folded micro-batch, to be answered apart from the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from intentrec_core.engine.member_key import MemberKey
from stream.pipeline.folding import ContextRun, PartitionWork, PendingAnswer
from stream.wire.records import PartitionResult

T = TypeVar("T")


@dataclass(slots=True)
class Slice:
    """What is answered together: works without records, and runs in waves."""

    works: list[PartitionWork] = field(default_factory=list)
    waves: list[list[ContextRun]] = field(default_factory=list)


def deal(
    works: Iterable[PartitionWork], waves: Iterable[Sequence[ContextRun]], share_of: Callable[[MemberKey], int | None]
) -> tuple[list[list[ContextRun]], dict[int, Slice]]:
    """Takes out the members that ``share_of`` gives a number; returns the waves of the others, and the shares by number.

    ``works`` keep their results and what belongs to no share.

    Cost: O(runs and answers of the micro-batch).
    """
    shares: defaultdict[int, Slice] = defaultdict(Slice)
    rest = []
    for runs in waves:
        kept, taken = _dealt(runs, lambda run: share_of(run.member))
        for number, own in taken.items():
            shares[number].waves.append(own)
        if kept:
            rest.append(kept)
    for work in works:
        work.pending, answers = _dealt(
            work.pending, lambda p: share_of(p.run.member) if isinstance(p, PendingAnswer) else None
        )
        for number, theirs in answers.items():
            result = PartitionResult(work.result.partition, work.result.next_offset, 0)
            shares[number].works.append(PartitionWork(result, theirs))
    return rest, dict(shares)


def _dealt(things: Iterable[T], share_of: Callable[[T], int | None]) -> tuple[list[T], dict[int, list[T]]]:
    """What belongs to no share, and what belongs to each, in the order given."""
    kept: list[T] = []
    taken: dict[int, list[T]] = {}
    for thing in things:
        number = share_of(thing)
        (kept if number is None else taken.setdefault(number, [])).append(thing)
    return kept, taken
