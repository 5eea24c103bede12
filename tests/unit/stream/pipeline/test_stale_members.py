"""Who must be forgotten by an engine that takes over: exactly those whose history moved behind its back, in bounded memory."""

from __future__ import annotations

from typing import Any

from stream.pipeline.stale_members import StaleMembers


class Engine:
    """Remembers who is cached."""

    def __init__(self, *cached: str) -> None:
        self.cached = set(cached)

    def cached_members(self) -> list[str]:
        return sorted(self.cached)

    def forget(self, member: str) -> None:
        self.cached.discard(member)


def _swap(moved: StaleMembers, old: Any, new: Any) -> set[str]:
    moved.migration_starts(new)
    moved.migration_ends(old, new, ())
    return set(new.cached)


def test_a_coming_engine_keeps_whoever_moved_before_its_takeover_and_whoever_it_has_taken_over() -> None:
    moved, serving, coming = StaleMembers(10), Engine(), Engine("ann", "ben", "cat")
    moved.add(["ann"])
    moved.migration_starts(coming)
    moved.add(["ben", "cat"])
    moved.migration_ends(serving, coming, {"cat"})
    assert coming.cached == {"ann", "cat"}


def test_the_engine_before_forgets_whoever_moved_since_the_takeover_after_it_began() -> None:
    moved, first, second = StaleMembers(10), Engine("ann", "ben", "cat", "dan"), Engine()
    moved.add(["dan"])  # the first one serves, and was told itself
    moved.migration_starts(second)
    moved.add(["cat"])  # who may have been taken over already
    moved.migration_ends(first, second, {"cat"})
    moved.add(["ann"])
    assert _swap(moved, second, first) == {"ben", "dan"}


def test_the_engine_before_has_forgotten_them_when_its_own_takeover_begins() -> None:
    moved, first, second = StaleMembers(10), Engine("ann", "ben"), Engine()
    _swap(moved, first, second)
    moved.add(["ann"])
    moved.migration_starts(first)
    assert first.cached == {"ben"}


def test_after_a_takeover_that_failed_the_old_engine_has_forgotten_whoever_moved_meanwhile() -> None:
    moved, first, second, third = StaleMembers(10), Engine("ann", "ben", "cat"), Engine("ann", "ben"), Engine("ben")
    _swap(moved, first, second)
    moved.add(["cat"])
    moved.migration_starts(third)
    moved.add(["ann"])
    moved.migration_aborts(second, third)
    assert second.cached == {"ben"}
    assert third.cached == set()
    assert _swap(moved, second, first) == {"ben"}, "a rollback still knows what moved before and during it"


def test_beyond_what_an_engine_can_hold_it_forgets_everybody_and_memory_is_bounded() -> None:
    moved, first, second = StaleMembers(3), Engine("ann", "user-7"), Engine("ann", "user-8")
    moved.migration_starts(second)
    for number in range(100_000):
        moved.add([f"user-{number}"])
    assert len(moved) <= 6
    moved.migration_ends(first, second, ())
    assert second.cached == set()
    assert _swap(moved, second, first) == set()
    assert _swap(moved, first, second) == set()


def test_a_takeover_begins_anew_after_too_many() -> None:
    moved, coming = StaleMembers(3), Engine("ann", "user-7")
    moved.add(f"user-{number}" for number in range(10))
    assert _swap(moved, Engine(), coming) == {"ann", "user-7"}
