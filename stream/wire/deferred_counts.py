"""Counts that wait for a commit: work that is dropped and done again is counted once, and what nobody committed never.

A cut whose commit succeeded while its answer was lost is counted by nobody: plays are not missing then, only their count is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter


class DeferredCounts:
    """Amounts by counter and labels. Filled on the inference thread, then handed over to the event loop."""

    __slots__ = ("_amounts",)

    def __init__(self) -> None:
        self._amounts: dict[tuple[Counter, tuple[str, ...]], float] = {}

    def add(self, counter: Counter, *labels: str, amount: float) -> None:
        """Notes what ``counter`` will be raised by."""
        if amount:
            key = (counter, labels)
            self._amounts[key] = self._amounts.get(key, 0) + amount

    def add_all(self, other: DeferredCounts) -> None:
        """Adds another one's amounts."""
        for (counter, labels), amount in other._amounts.items():
            self.add(counter, *labels, amount=amount)

    def count(self) -> None:
        """Raises the counters. To be called once, when what is counted is durable."""
        for (counter, labels), amount in self._amounts.items():
            (counter.labels(*labels) if labels else counter).inc(amount)
