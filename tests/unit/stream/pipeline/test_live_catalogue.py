"""The live catalogue read on another thread while a change is applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from intentrec_core.features.catalogue import Item
from stream.pipeline.live_catalogue import CatalogueState, LiveCatalogue
from stream.wire.catalogue_record import ItemChanges


class Interrupted(dict[int, Any]):
    """Changes that are read by another thread after each of them."""

    def __init__(self, changes: dict[int, Any], catalogue: LiveCatalogue) -> None:
        super().__init__(changes)
        self.catalogue = catalogue
        self.seen: list[CatalogueState] = []

    def items(self) -> Iterator[tuple[int, Any]]:  # type: ignore[override]  # a view in dict, an iterator here
        for change in super().items():
            self.seen.append(self.catalogue.everything())
            yield change
        self.seen.append(self.catalogue.everything())


def test_what_is_looked_up_while_a_change_is_applied_is_completed_by_what_came_since() -> None:
    catalogue = LiveCatalogue()
    catalogue.apply(ItemChanges({number: Item(f"m{number}", "", {}) for number in range(9)}, 8))
    changes = Interrupted(dict.fromkeys(range(5)), catalogue)
    catalogue.apply(ItemChanges(changes, 13))
    for state in changes.seen:
        assert state.items | catalogue.since(state.version).items == catalogue.everything().items


def test_of_a_topic_that_was_made_anew_only_what_differs_is_a_change() -> None:
    """So that the bundles that serve are not changed for items that stay as they are."""
    catalogue = LiveCatalogue()
    catalogue.apply(ItemChanges({number: Item(f"m{number}", "Old", {"year": 1990}) for number in range(9)}, 8))
    catalogue.apply(ItemChanges({5: None}, 9))
    version = catalogue.version
    kept = {number: Item(f"m{number}", "Old", {"year": 1990}) for number in (1, 2)}
    catalogue.apply(ItemChanges({**kept, 3: Item("m3", "New", {"year": 1990})}, 2, is_whole=True))
    assert catalogue.since(version).items == {3: Item("m3", "New", {"year": 1990}), **dict.fromkeys((0, 4, 6, 7, 8))}
    assert (catalogue.num_items, catalogue.offset) == (3, 2)
    catalogue.apply(ItemChanges({1: kept[1], 2: None}, 3))
    assert catalogue.since(version + 1).items == {2: None}
