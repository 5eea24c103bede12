"""Takes some members out of a folded micro-batch, to be encoded and answered apart from the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from intentrec_core.engine.member_key import MemberKey
from stream.pipeline.folding import ContextRun, FoldedBatch, FoldedPartition

T = TypeVar("T")


def split_by_member(
    batch: FoldedBatch, slice_of: Callable[[MemberKey], int | None]
) -> tuple[FoldedBatch, dict[int, FoldedBatch]]:
    """Takes out the members for which ``slice_of`` returns a number.

    Returns the rest, which keeps all records, and the slices by number, which hold answers alone.

    Cost: O(runs and answers of the micro-batch).
    """
    rest_waves: list[list[ContextRun]] = []
    rest_partitions: list[FoldedPartition] = []
    waves: defaultdict[int, list[list[ContextRun]]] = defaultdict(list)
    partitions: defaultdict[int, list[FoldedPartition]] = defaultdict(list)
    for runs in batch.waves:
        kept, taken = _split(runs, lambda run: slice_of(run.member))
        for number, own in taken.items():
            waves[number].append(own)
        if kept:
            rest_waves.append(kept)
    for partition in batch.partitions:
        answers, answers_of = _split(partition.answers, lambda answer: slice_of(answer.run.member))
        rest_partitions.append(partition.with_answers(answers) if answers_of else partition)
        for number, own_answers in answers_of.items():
            partitions[number].append(partition.answers_alone(own_answers))
    rest = replace(batch, partitions=rest_partitions, waves=rest_waves)
    return rest, {number: FoldedBatch(partitions[number], waves[number], batch.coalesced) for number in waves}


def _split(things: Iterable[T], slice_of: Callable[[T], int | None]) -> tuple[list[T], dict[int, list[T]]]:
    """The things without a number, and the others by number, in the order given."""
    kept: list[T] = []
    taken: dict[int, list[T]] = {}
    for thing in things:
        number = slice_of(thing)
        (kept if number is None else taken.setdefault(number, [])).append(thing)
    return kept, taken
