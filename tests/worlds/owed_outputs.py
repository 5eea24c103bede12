"""Which outputs a record of the plays topic is owed: the contract's ids, from the outcome that the naive fold gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

#: By outcome: the last parts of the ids (deploy/contracts/asyncapi.json, intentrec-id). Any other outcome is owed nothing.
KINDS = {"applied": (b"recommendation", b"intent"), "rejected": (b"dead_letter",), "late": (b"late",)}


class Placed(Protocol):
    """A record's place."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


def owed_outputs(record: Placed, outcome: str) -> Iterator[bytes]:
    """The ids of the outputs that a record with this outcome is owed."""
    for kind in KINDS.get(outcome, ()):
        yield b"%b-%d-%d-%b" % (record.topic.encode(), record.partition, record.offset, kind)
