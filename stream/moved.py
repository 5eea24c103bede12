"""Members whose cached keys and values, in an engine that is not serving, say something else than their history by now.

A late play changes the middle of a context, a partition that comes back begins anew: the serving engine is told, the others
are told when they take over. There are two of them, with different pasts: the one that served before, which saw everything up
to the flip, and a coming one, which was warmed up from the contexts of a moment. Memory is bounded by what an engine can cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intentrec_core.engine import IncrementalEngine


class Moved:
    """Owned by the inference thread. ``max_members``: beyond so many, an engine forgets everybody it has cached."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._previous: IncrementalEngine | None = None
        self._since_flip: set[str] | None = set()
        self._since_warm_up: set[str] | None = set()

    def __len__(self) -> int:
        """Names held."""
        return len(self._since_flip or ()) + len(self._since_warm_up or ())

    def add(self, members: Iterable[str]) -> None:
        """What others have cached of them is not to be used."""
        self._since_flip = self._grown(self._since_flip, members)
        self._since_warm_up = self._grown(self._since_warm_up, members)

    def warm_up_begins(self) -> None:
        """The contexts for a coming engine were taken: what moved before does not concern it."""
        self._since_warm_up = set()

    def flip(self, old: IncrementalEngine, new: IncrementalEngine) -> None:
        """Has the engine that takes over forget whom it has to."""
        members = self._since_flip if new is self._previous else self._since_warm_up
        for member in new.cached_users() if members is None else members:
            new.forget(member)
        self._previous, self._since_flip, self._since_warm_up = old, set(), set()

    def _grown(self, held: set[str] | None, members: Iterable[str]) -> set[str] | None:
        if held is None:
            return None
        held.update(members)
        return held if len(held) <= self._max_members else None
