"""Members whose cached keys and values, in an engine that is not serving them, say something else than their history by now.

A late play changes the middle of a context, a partition that comes back begins anew: the engine that serves is told, the others
are told when they take over. There are two of them, with different pasts: the one that served before, which saw everything up
to the takeover after it, and during a takeover the coming one. Memory is bounded by what an engine can cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from intentrec_core.engine.member_key import MemberKey

if TYPE_CHECKING:
    from intentrec_core.engine.engine import IncrementalEngine


class StaleMembers:
    """Owned by the inference thread. ``max_members``: beyond so many, an engine forgets everybody it has cached."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._previous: IncrementalEngine | None = None
        self._since_previous: set[MemberKey] | None = set()
        self._since_migration: set[MemberKey] | None = set()

    def __len__(self) -> int:
        """Names held."""
        return len(self._since_previous or ()) + len(self._since_migration or ())

    def add(self, members: Iterable[MemberKey]) -> None:
        """What others have cached of them is not to be used."""
        self._since_previous = self._grown(self._since_previous, members)
        self._since_migration = self._grown(self._since_migration, members)

    def migration_starts(self, coming: IncrementalEngine) -> None:
        """Members begin to move: ``coming`` forgets whom it has cached wrongly."""
        if coming is self._previous:
            _forget(coming, self._since_previous)
        self._since_migration = set()

    def migration_ends(self, old: IncrementalEngine, new: IncrementalEngine, taken_over: Collection[MemberKey]) -> None:
        """``new`` serves everybody from here on, ``taken_over`` members since before, and ``old`` is kept."""
        _forget(new, self._since_migration, but=taken_over)
        self._previous, self._since_previous, self._since_migration = old, self._since_migration, set()

    def migration_aborts(self, old: IncrementalEngine, new: IncrementalEngine) -> None:
        """``old`` goes on serving everybody."""
        _forget(old, self._since_migration)
        _forget(new, None)

    def _grown(self, held: set[MemberKey] | None, members: Iterable[MemberKey]) -> set[MemberKey] | None:
        if held is None:
            return None
        held.update(members)
        return held if len(held) <= self._max_members else None


def _forget(engine: IncrementalEngine, members: Iterable[MemberKey] | None, but: Collection[MemberKey] = ()) -> None:
    """``members`` None: everybody."""
    for member in engine.cached_members() if members is None else members:
        if member not in but:
            engine.forget(member)
