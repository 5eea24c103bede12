"""The order of the rows of a page: the heaviest first, but for changes that mean nothing.

A row goes above an earlier one only if it weighs more than :data:`MARGIN` times as much; then above the topmost of those,
and so past those between. So no row weighs clearly more than any row above it. Where the rows come in the order in which they are
shown, a row goes up at one ratio and down again only at its inverse: what is on a screen does not jump to and fro.

A worker orders from the declared order, so that its messages depend on nothing that was shown before. Whoever draws a screen
orders again from what it shows (:func:`steady`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

#: Weights are products of probabilities, which the engine gives to 1e-4; a quarter more is beyond what members notice.
MARGIN = 1.25

Row = TypeVar("Row")


def by_weight(rows: Sequence[Row], weight: Callable[[Row], float]) -> list[Row]:
    """The rows, given in the order that counts where weights are about the same. Cost: O(n²) for n rows."""
    ordered: list[Row] = []
    for row in rows:
        lighter = (place for place, above in enumerate(ordered) if weight(row) > MARGIN * weight(above))
        place = next(lighter, len(ordered))
        ordered.insert(place, row)
    return ordered


def steady(
    shown: Sequence[Hashable], rows: Sequence[Row], name: Callable[[Row], Hashable], weight: Callable[[Row], float]
) -> list[Row]:
    """The rows of a new page, with those that are ``shown`` in their places as long as no other weighs clearly more.

    ``shown``: the names of the rows on the screen, first row first. ``name``: what a row is called in it.
    """
    place = {shown_name: at for at, shown_name in enumerate(shown)}
    return by_weight(sorted(rows, key=lambda row: place.get(name(row), len(place))), weight)
