"""Plays of one member answered together: each is folded in, encoded and judged as always, only the last one is answered.

    plays of a member in one micro-batch   17   23   24        the outputs of 24 name the run:
    answers without coalescing             17   23   24        "coalesced": {"plays": 3, "first_offset": 17}
    with it                                           24

A run is named by what stands in the log, so that it can be told from a gap: of this member, no play between the first offset
and the one answered is owed anything else. After a failure plays can come in other runs. Outputs of a member leave in source
order and each names all that was not answered before it, so at any moment every play up to the newest output has been
answered or named; a repeat that a subscriber drops takes nothing with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from intentrec_core.engine.member_key import MemberKey
from stream.pipeline.folding import PendingAnswer


def coalesce(answers: Iterable[PendingAnswer]) -> int:
    """Leaves of each member's answers the last one, which stands for the others; returns how many others there are."""
    by_member: dict[MemberKey, list[PendingAnswer]] = {}
    for answer in answers:
        by_member.setdefault(answer.run.member, []).append(answer)
    num_coalesced = 0
    for *coalesced_away, last in by_member.values():
        last.coalesces = coalesced_away
        for answer in coalesced_away:
            answer.is_coalesced = True
        num_coalesced += len(coalesced_away)
    return num_coalesced
