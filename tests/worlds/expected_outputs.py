"""Which outputs a record of the plays topic must have: the contract's ids, from the outcome that the naive fold gives.

An applied play whose message is larger than its topic takes has a dead letter in its place, one for both, and the other
message as always.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

#: By outcome: the last parts of the ids (deploy/contracts/asyncapi.json, intentrec-id). Any other outcome has none.
KINDS = {"applied": (b"recommendation", b"intent"), "rejected": (b"dead_letter",), "late": (b"late",)}


class Placed(Protocol):
    """A record's place."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


def expected_outputs(record: Placed, outcome: str, too_large: Collection[bytes] = ()) -> Iterator[bytes]:
    """The ids of the outputs that a record with this outcome must have; ``too_large`` are kinds that its topics do not take."""
    kinds = KINDS.get(outcome, ())
    for kind in (
        *(k for k in kinds if k not in too_large),
        *((b"dead_letter",) if set(kinds) & set(too_large) else ()),
    ):
        yield b"%b-%d-%d-%b" % (record.topic.encode(), record.partition, record.offset, kind)
