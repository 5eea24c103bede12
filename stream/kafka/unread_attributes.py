"""Says which items of the items topic are shown without an attribute, because nothing can read its value.

An item that anyone may write is not refused for such a value: it goes on being shown, under the label of a missing one. So the
value is named in the log, and the items are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from intentrec_core.features.attributes import CannotBeKept, plain
from intentrec_core.features.catalogue import Item
from intentrec_core.features.release_times import release_keys, release_problem

if TYPE_CHECKING:
    from intentrec_core.domain.spec import Domain
    from stream.ops.metrics import Metrics
    from stream.wire.catalogue_record import ItemChanges

logger = logging.getLogger(__name__)

#: Of the changes that come together. All of them are counted.
_MAX_NAMED = 100


def unread_attributes(item: Item, releases: Collection[str]) -> dict[str, str]:
    """By name, what is wrong with the attributes that nothing can read: nested values, and releases that are no times.

    ``releases``: the attributes that the domain reads as releases.
    """
    problems: dict[str, str] = {}
    for name, value in item.attributes.items():
        try:
            plain(value)
        except CannotBeKept as error:
            problems[name] = str(error)
    for name in releases:
        problem = None if name in problems else release_problem(item.attributes, name)
        if problem is not None:
            problems[name] = problem
    return problems


class UnreadAttributes:
    """Counts the items that are shown without an attribute now, and names each of them once for as long as it is one."""

    def __init__(self, topic: str, domain: Domain, metrics: Metrics) -> None:
        self._topic, self._metrics = topic, metrics
        self._releases = release_keys(domain)
        self._items: set[int] = set()

    def look(self, changes: ItemChanges) -> None:
        """Looks at changed items. Cost: about 2 µs for each."""
        if changes.is_whole:
            self._items.intersection_update(changes.items)
        num_named = num_more = 0
        for item_hash, item in changes.items.items():
            problems = {} if item is None else unread_attributes(item, self._releases)
            if item is None or not problems:
                self._items.discard(item_hash)
            elif item_hash not in self._items:
                self._items.add(item_hash)
                if num_named < _MAX_NAMED:
                    num_named += 1
                    shown = "; ".join(f"{name!a}: {problem}" for name, problem in problems.items())
                    logger.warning(
                        "%s: item %r is shown without attributes that cannot be read; write it again: %s",
                        self._topic, item.item_id, shown[:500],
                    )  # fmt: skip
                else:
                    num_more += 1
        if num_more:
            logger.warning("%s: %d more items are shown without attributes that cannot be read", self._topic, num_more)
        self._metrics.catalogue_cut_items.set(len(self._items))
