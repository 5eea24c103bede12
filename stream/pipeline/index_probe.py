"""Asks the exact search some of a worker's queries again, to show what the index of the bundle misses.

    queries ─ one in a thousand ─▶ exact search, on a thread of the lowest priority ─▶ intentrec_index_recall_ratio

The queries that an approximate index was planned with grow old; only live queries show whether it still finds what it promised.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from index.base import ItemIndex, Mask, Rows, Vectors
from index.counted import CountedIndex
from index.extended import ExtendedIndex
from index.recall import count_found, exact_search_of

if TYPE_CHECKING:
    from prometheus_client import Gauge

logger = logging.getLogger(__name__)

#: One query in this many is searched again.
PROBED_EVERY = 1000
#: Probes that the ratio is of: 5,000 items of lists of ten.
_KEPT_PROBES = 500
#: Of fewer, one missed item is as much as an alert is about.
FEWEST_PROBES = 100
_LOWEST_PRIORITY = 19


class IndexProbe:
    """Probes one query at a time. One thread offers; while a probe runs, further ones are left out.

    ``ratio`` is of the index that was probed last, over its last 500 probes; NaN while there are fewer than ``fewest``. Items
    that are added beside an index make it no other one.
    """

    def __init__(self, ratio: Gauge, every: int = PROBED_EVERY, fewest: int = FEWEST_PROBES) -> None:
        self._ratio, self._every, self._fewest, self._num_seen = ratio, every, fewest, 0
        self._probes: WeakKeyDictionary[ItemIndex, deque[tuple[int, int]]] = WeakKeyDictionary()
        self._running: threading.Thread | None = None

    def offer(
        self,
        index: ItemIndex,
        queries: Vectors,
        found: tuple[Rows, Vectors],
        excluded: Sequence[Rows],
        allowed: Sequence[Mask | None],
    ) -> None:
        """Starts a probe of one of these queries if it is one's turn.

        Shapes: queries f32[B, D], found i64[B, k] and f32[B, k] as :meth:`~index.base.ItemIndex.search` returned them.
        Cost: nothing for most batches; for a probe, an exact search on another thread.
        """
        place = self._every - 1 - self._num_seen % self._every
        self._num_seen += len(queries)
        if place >= len(queries) or (self._running is not None and self._running.is_alive()):
            return
        exact = exact_search_of(index)
        if exact is None:
            return
        one = slice(place, place + 1)
        # Copies: the arrays of a batch may be written to after it is answered.
        query, rows, scores = queries[one].copy(), found[0][one].copy(), found[1][one].copy()
        hidden, masks = [excluded[place].copy()], [allowed[place]]

        def probe() -> None:
            _lower_priority()
            try:
                true_rows, true_scores = exact.search(query, rows.shape[1], excluded=hidden, allowed=masks)
                counts = count_found(rows, scores, true_rows, true_scores)
                own = index
                while isinstance(own, ExtendedIndex | CountedIndex):
                    own = own.base
                probes = self._probes.setdefault(own, deque(maxlen=_KEPT_PROBES))
                probes.append(counts)
                wanted = sum(num for num, _ in probes)
                is_enough = wanted > 0 and len(probes) >= self._fewest
                self._ratio.set(sum(num for _, num in probes) / wanted if is_enough else math.nan)
            except Exception:  # a probe that fails must not end a worker, but it must be seen
                logger.exception("a query could not be compared with the exact search")

        self._running = threading.Thread(target=probe, name="index-probe", daemon=True)
        self._running.start()

    def wait(self) -> None:
        """Returns when no probe runs."""
        if self._running is not None:
            self._running.join()


def _lower_priority() -> None:
    """Linux gives each thread a priority of its own; elsewhere this would slow the whole process."""
    if hasattr(os, "sched_getscheduler"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
