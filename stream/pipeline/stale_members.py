"""Members whose cached keys and values in an engine that does not serve them no longer match their history.

An out-of-order play changes the middle of a context, and a partition that comes back starts with other state. The engine that
serves the member is updated at once; every other engine is updated when it starts to serve. There are two of those, with
different pasts: the engine of the previous bundle, which saw everything up to the migration away from it, and during a migration
the coming one. Memory is bounded by what an engine can cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intentrec_core.engine.engine import IncrementalEngine
    from intentrec_core.engine.member_key import MemberKey


class StaleMembers:
    """Owned by the inference thread. ``max_members``: with more stale members than this, an engine drops its whole cache."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._previous: IncrementalEngine | None = None
        self._since_previous: set[MemberKey] | None = set()
        self._since_migration: set[MemberKey] | None = set()

    def __len__(self) -> int:
        """Keys held."""
        return len(self._since_previous or ()) + len(self._since_migration or ())

    def add(self, members: Iterable[MemberKey]) -> None:
        """Marks members: what an engine that does not serve them has cached is not to be used."""
        self._since_previous = self._grown(self._since_previous, members)
        self._since_migration = self._grown(self._since_migration, members)

    def migration_starts(self, coming: IncrementalEngine) -> None:
        """Members begin to move to ``coming``, which drops its stale ones first."""
        if coming is self._previous:
            _forget(coming, self._since_previous)
        self._since_migration = set()

    def migration_ends(self, old: IncrementalEngine, new: IncrementalEngine, migrated: Collection[MemberKey]) -> None:
        """``new`` serves every member from now on, the ``migrated`` ones since earlier, and ``old`` is kept."""
        _forget(new, self._since_migration, but=migrated)
        self._previous, self._since_previous, self._since_migration = old, self._since_migration, set()

    def migration_aborts(self, old: IncrementalEngine, new: IncrementalEngine) -> None:
        """``old`` serves every member again."""
        _forget(old, self._since_migration)
        _forget(new, None)

    def _grown(self, held: set[MemberKey] | None, members: Iterable[MemberKey]) -> set[MemberKey] | None:
        if held is None:
            return None
        held.update(members)
        return held if len(held) <= self._max_members else None


def _forget(engine: IncrementalEngine, members: Iterable[MemberKey] | None, but: Collection[MemberKey] = ()) -> None:
    """``members`` None: every cached member."""
    for member in engine.cached_members() if members is None else members:
        if member not in but:
            engine.forget(member)
