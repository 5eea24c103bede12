"""Counter increments that wait for a commit, so that work which is dropped and repeated is counted once.

Uncommitted work is never counted. If a commit succeeds but the broker's response is lost, its counts are lost as well: the
metrics then miss some plays, the state does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter


class DeferredCounts:
    """Pending increments by counter and labels. Filled on the inference thread, then handed over to the event loop."""

    __slots__ = ("_amounts",)

    def __init__(self) -> None:
        self._amounts: dict[tuple[Counter, tuple[str, ...]], float] = {}

    def add(self, counter: Counter, *labels: str, amount: float) -> None:
        """Adds to the pending increment of ``counter``."""
        if amount:
            key = (counter, labels)
            self._amounts[key] = self._amounts.get(key, 0) + amount

    def add_all(self, other: DeferredCounts) -> None:
        """Adds another one's amounts."""
        for (counter, labels), amount in other._amounts.items():
            self.add(counter, *labels, amount=amount)

    def count(self) -> None:
        """Increments the counters. Call it once, when the counted work is committed."""
        for (counter, labels), amount in self._amounts.items():
            (counter.labels(*labels) if labels else counter).inc(amount)
