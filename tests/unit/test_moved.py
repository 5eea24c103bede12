"""Who must be forgotten by an engine that takes over: exactly those whose history moved behind its back, in bounded memory."""

from __future__ import annotations

from typing import Any

from stream.moved import Moved


class Engine:
    """Remembers who is cached."""

    def __init__(self, *cached: str) -> None:
        self.cached = set(cached)

    def cached_users(self) -> list[str]:
        return sorted(self.cached)

    def forget(self, member: str) -> None:
        self.cached.discard(member)


def _flip(moved: Moved, old: Any, new: Any) -> set[str]:
    moved.flip(old, new)
    return set(new.cached)


def test_a_coming_engine_keeps_whoever_moved_before_it_was_warmed_up() -> None:
    moved, serving, coming = Moved(10), Engine(), Engine("ann", "ben")
    moved.add(["ann"])
    moved.warm_up_begins()
    moved.add(["ben"])
    assert _flip(moved, serving, coming) == {"ann"}


def test_the_engine_before_forgets_whoever_moved_since_the_flip_warmed_up_or_not() -> None:
    moved, first, second = Moved(10), Engine("ann", "ben", "cat"), Engine()
    moved.add(["cat"])  # the first one serves, and was told itself
    moved.flip(first, second)
    moved.add(["ann"])
    moved.warm_up_begins()
    assert _flip(moved, second, first) == {"ben", "cat"}


def test_beyond_what_an_engine_can_hold_it_forgets_everybody_and_memory_is_bounded() -> None:
    moved, first, second = Moved(3), Engine("ann", "user-7"), Engine("ann", "user-8")
    for number in range(100_000):
        moved.add([f"user-{number}"])
    assert len(moved) <= 6
    assert _flip(moved, first, second) == set()
    assert _flip(moved, second, first) == {"ann", "user-7"}, "a flip begins anew"


def test_a_warm_up_begins_anew_after_too_many() -> None:
    moved, coming = Moved(3), Engine("ann", "user-7")
    moved.add(f"user-{number}" for number in range(10))
    moved.warm_up_begins()
    assert _flip(moved, Engine(), coming) == {"ann", "user-7"}
