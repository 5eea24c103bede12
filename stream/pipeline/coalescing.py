"""Answers several plays of one member together: each is folded, encoded and scored as always, only the last one gets outputs.

    plays of a member in one micro-batch   17   23   24        the outputs of 24 name the others:
    answered without coalescing            17   23   24        "coalesced": {"plays": 3, "first_offset": 17}
    answered with coalescing                         24

The outputs name offsets of the log, so that a subscriber can tell coalesced plays from a gap: every play of this member from the
first offset to the answered one is answered by this message. After a failure, plays can come in other groups. A member's
outputs leave in source order, and each names all plays not answered earlier. So at any moment every play up to the newest
output has been answered or named, and a repeat that a subscriber drops takes no answer with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.member_key import MemberKey
from stream.pipeline.folding import FoldedPartition, PendingAnswer

CoalescedPlays = Sequence[tuple[PendingAnswer, int]]
"""Plays that another one is answered for, and their rows, oldest first."""


@dataclass(frozen=True, slots=True)
class Coalescing:
    """Which plays get outputs, and which other plays they are answered for.

    ``unanswered`` bool[N]: rows without outputs, because they failed or are coalesced. ``coalesced``: for each answer of each
    partition the plays it is answered for, or None where it is itself answered with a later one.
    """

    unanswered: NDArray[np.bool_]
    coalesced: Sequence[Sequence[CoalescedPlays | None]]
    num_coalesced: Sequence[int]

    @classmethod
    def none(cls, partitions: Sequence[FoldedPartition], failed: NDArray[np.bool_]) -> Coalescing:
        """Every play is answered by itself."""
        return cls(failed, [[()] * len(partition.answers) for partition in partitions], [0] * len(partitions))


def coalesce(
    partitions: Sequence[FoldedPartition], rows_of: Sequence[Sequence[int]], failed: NDArray[np.bool_]
) -> Coalescing:
    """Answers of each member's plays that could be encoded only the last one, for all of them.

    Shapes: ``rows_of`` the row of each answer, by partition; ``failed`` bool[N].
    """
    unanswered, is_failed = np.ones_like(failed), failed.tolist()
    coalesced: list[list[CoalescedPlays | None]] = []
    for partition, rows in zip(partitions, rows_of, strict=True):
        places: dict[MemberKey, list[int]] = {}
        for place, (answer, row) in enumerate(zip(partition.answers, rows, strict=True)):
            if not is_failed[row]:
                places.setdefault(answer.run.member, []).append(place)
        of_partition: list[CoalescedPlays | None] = [()] * len(rows)
        for *earlier, last in places.values():
            unanswered[rows[last]] = False
            of_partition[last] = [(partition.answers[place], rows[place]) for place in earlier]
            for place in earlier:
                of_partition[place] = None
        coalesced.append(of_partition)
    return Coalescing(unanswered, coalesced, [sum(c is None for c in of_partition) for of_partition in coalesced])
