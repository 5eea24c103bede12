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

    def items(self) -> Iterator[tuple[int, Any]]:  # type: ignore[override]
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
