"""An engine that begins to serve forgets exactly the stale members, and the set of stale members is bounded."""

from __future__ import annotations

from typing import Any

from stream.pipeline.stale_members import StaleMembers


class Engine:
    """An engine that only holds the set of cached members."""

    def __init__(self, *cached: str) -> None:
        self.cached = set(cached)

    def cached_members(self) -> list[str]:
        return sorted(self.cached)

    def forget(self, member: str) -> None:
        self.cached.discard(member)


def _swap(stale: StaleMembers, old: Any, new: Any) -> set[str]:
    stale.migration_starts(new)
    stale.migration_ends(old, new, ())
    return set(new.cached)


def test_a_coming_engine_keeps_members_that_were_stale_before_the_migration_or_have_migrated() -> None:
    stale, serving, coming = StaleMembers(10), Engine(), Engine("ann", "ben", "cat")
    stale.add(["ann"])
    stale.migration_starts(coming)
    stale.add(["ben", "cat"])
    stale.migration_ends(serving, coming, {"cat"})
    assert coming.cached == {"ann", "cat"}


def test_the_previous_engine_forgets_members_that_are_stale_since_the_migration_away_from_it() -> None:
    stale, first, second = StaleMembers(10), Engine("ann", "ben", "cat", "dan"), Engine()
    stale.add(["dan"])  # the first engine serves, and has seen the late play
    stale.migration_starts(second)
    stale.add(["cat"])  # has migrated already
    stale.migration_ends(first, second, {"cat"})
    stale.add(["ann"])
    assert _swap(stale, second, first) == {"ben", "dan"}


def test_the_previous_engine_forgets_stale_members_when_the_migration_back_starts() -> None:
    stale, first, second = StaleMembers(10), Engine("ann", "ben"), Engine()
    _swap(stale, first, second)
    stale.add(["ann"])
    stale.migration_starts(first)
    assert first.cached == {"ben"}


def test_after_an_aborted_migration_the_old_engine_has_forgotten_members_that_became_stale() -> None:
    stale, first, second, third = StaleMembers(10), Engine("ann", "ben", "cat"), Engine("ann", "ben"), Engine("ben")
    _swap(stale, first, second)
    stale.add(["cat"])
    stale.migration_starts(third)
    stale.add(["ann"])
    stale.migration_aborts(second, third)
    assert second.cached == {"ben"}
    assert third.cached == set()
    assert _swap(stale, second, first) == {"ben"}, "a rollback still knows what became stale before and during it"


def test_with_too_many_stale_members_an_engine_forgets_all_and_memory_is_bounded() -> None:
    stale, first, second = StaleMembers(3), Engine("ann", "user-7"), Engine("ann", "user-8")
    stale.migration_starts(second)
    for number in range(100_000):
        stale.add([f"user-{number}"])
    assert len(stale) <= 6
    stale.migration_ends(first, second, ())
    assert second.cached == set()
    assert _swap(stale, second, first) == set()
    assert _swap(stale, first, second) == set()


def test_a_migration_starts_with_an_empty_set_after_too_many_stale_members() -> None:
    stale, coming = StaleMembers(3), Engine("ann", "user-7")
    stale.add(f"user-{number}" for number in range(10))
    assert _swap(stale, Engine(), coming) == {"ann", "user-7"}
