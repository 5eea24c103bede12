"""Plays fetched and not yet committed: what memory holds of them, and what a crash would replay, is bounded here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream.delivery.partition import PartitionLife
    from stream.wire.records import Fetched


@dataclass(slots=True)
class _OfLife:
    num_plays: int = 0
    num_bytes: int = 0
    #: Per fetch, the offset behind its last play, and its bytes; oldest first.
    fetches: deque[tuple[int, int]] = field(default_factory=deque)


class Outstanding:
    """By life, how many plays were fetched and are not committed. Owned by the event loop.

    ``max_plays`` and ``max_bytes`` (of values, over all lives) may be exceeded by one fetch.
    """

    def __init__(self, *, max_plays: int, max_bytes: int) -> None:
        self._max_plays = max_plays
        self._max_bytes = max_bytes
        self._lives: dict[PartitionLife, _OfLife] = {}

    @property
    def has_room(self) -> bool:
        """Whether more may be fetched."""
        lives = self._lives.values()
        return (
            sum(life.num_plays for life in lives) < self._max_plays
            and sum(life.num_bytes for life in lives) < self._max_bytes
        )

    def holds(self, life: PartitionLife) -> bool:
        """Whether plays of a life wait for a commit."""
        held = self._lives.get(life)
        return held is not None and held.num_plays > 0

    def begin(self, life: PartitionLife) -> None:
        """A life begins, with nothing fetched."""
        self._lives[life] = _OfLife()

    def fetched(self, life: PartitionLife, fetched: Fetched) -> None:
        """Counts what was fetched for a life."""
        held = self._lives[life]
        num_bytes = sum(len(record.value or b"") for record in fetched.records)
        held.num_plays += len(fetched.records)
        held.num_bytes += num_bytes
        if fetched.records:  # a fetch may end behind a transaction's end, a cut never does
            held.fetches.append((fetched.records[-1].offset + 1, num_bytes))

    def committed(self, life: PartitionLife, num_plays: int, next_offset: int) -> None:
        """A cut up to before ``next_offset`` is durable; of a life that has ended it changes nothing."""
        held = self._lives.get(life)
        if held is None:
            return
        held.num_plays -= num_plays
        while held.fetches and held.fetches[0][0] <= next_offset:
            held.num_bytes -= held.fetches.popleft()[1]

    def end(self, life: PartitionLife) -> bool:
        """A life has ended: nothing of it is outstanding. Returns whether something was."""
        held = self._lives.pop(life, None)
        return held is not None and held.num_plays > 0
