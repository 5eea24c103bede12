"""Popular now: plays of every item in a sliding window of event time, with the order kept as plays come and go.

A count changes by one, so an item moves only to the edge of its block of equal counts: one swap a play, no sorting. Time is
the newest event time added, never a clock; a play that is already older than the window changes nothing.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

WEEK_S = 604_800.0
#: The place of a row that nobody plays: behind all others.
_NOT_PLAYED = np.iinfo(np.int64).max


class PopularWindow:
    """Counts of plays by item row over the last ``window_s`` seconds of event time, and their order.

    ``num_added``: how often :meth:`add` was called.

    Rows are any integers above 0; row 0 (unknown item) is never counted. Among equal counts the order is fixed by the
    sequence of calls and means nothing.

    Raises: ValueError when ``window_s`` is not above 0.
    Cost: O(log P) a play added, P the plays in the window; memory O(P + highest row).
    """

    def __init__(self, window_s: float = WEEK_S, num_rows: int = 0) -> None:
        if not window_s > 0:
            raise ValueError(f"window_s is {window_s}; allowed: above 0")
        self.window_s = window_s
        self.now_s = float("-inf")
        self.num_added = 0
        self._plays: list[tuple[float, int, int]] = []  # heap of (time, row, how many): members' clocks interleave
        self._counts = array("q")  # as quick as a list one by one, and numpy reads it whole
        self._order: list[int] = []  # rows by falling count
        self._place = array("q")  # of each row in the order
        self._above: list[int] = [0]  # of count c: how many rows have more than c plays
        self._reserve(max(1, num_rows))

    def __len__(self) -> int:
        """Plays in the window."""
        return sum(number for _, _, number in self._plays)

    def add(self, row: int, ts_s: float) -> None:
        """Counts one play at event time ``ts_s`` and drops what is ``window_s`` or more older than the newest play."""
        self.num_added += 1
        if row > 0 and ts_s > self.now_s - self.window_s:
            self._reserve(row + 1)
            heapq.heappush(self._plays, (ts_s, row, 1))
            self._raise_count(row)
        self.advance(ts_s)

    def seed(self, counts: Sequence[float] | NDArray[np.float32], ts_s: float) -> None:
        """Starts from the plays a bundle counted up to ``ts_s``; they leave together when the window has passed."""
        self._reserve(len(counts))
        for row, count in enumerate(counts):
            number = int(count)
            if row and number > 0:
                heapq.heappush(self._plays, (ts_s, row, number))
                for _ in range(number):
                    self._raise_count(row)
        self.advance(ts_s)

    def advance(self, ts_s: float) -> None:
        """Moves the window on to event time ``ts_s``; an earlier time changes nothing."""
        self.now_s = max(self.now_s, ts_s)
        while self._plays and self._plays[0][0] <= self.now_s - self.window_s:
            _, row, number = heapq.heappop(self._plays)
            for _ in range(number):
                self._lower_count(row)

    def count(self, row: int) -> int:
        """Plays of one row in the window."""
        return self._counts[row] if 0 <= row < len(self._counts) else 0

    def counts(self, num_rows: int) -> NDArray[np.float32]:
        """Plays of rows 0 to ``num_rows - 1``. Shape: f32[num_rows]."""
        counts = np.zeros(num_rows, dtype=np.float32)
        known = np.frombuffer(self._counts, dtype=np.int64, count=min(num_rows, len(self._counts)))
        counts[: len(known)] = known
        return counts

    def top(self, k: int, excluded: Collection[int] = ()) -> list[int]:
        """The ``k`` most played rows, most played first, without ``excluded`` and without rows not played at all.

        Cost: O(k + len(excluded)).
        """
        unwanted = excluded if isinstance(excluded, (set, frozenset)) else set(excluded)
        rows: list[int] = []
        for row in self._order:
            if len(rows) >= k or not self._counts[row]:
                break
            if row not in unwanted:
                rows.append(row)
        return rows

    def among_top(
        self, rows: NDArray[np.int64], k: int, excluded: Sequence[NDArray[np.int64]] | None = None
    ) -> NDArray[np.bool_]:
        """Whether each row is one of :meth:`top`'s ``k``, each without the ``excluded`` of its own (repeats and 0 too).

        Shapes: rows i64[N], excluded i64[any] a row -> bool[N].
        Cost: a few array passes, and O(its excluded) for a row that is among the ``k`` + as many most played.
        """
        known = rows < len(self._place)
        places = np.frombuffer(self._place, dtype=np.int64)
        at = places[np.where(known, rows, 0)]
        at[~known | (at >= self._above[0])] = _NOT_PLAYED
        if excluded is None:
            return at < k
        among = at < k + np.array([len(own) for own in excluded], dtype=np.int64)
        for i in np.flatnonzero(among).tolist():
            place, own = int(at[i]), excluded[i]
            others = places[own[own < len(places)]]
            above = set(others[others <= place].tolist())
            among[i] = place not in above and place - len(above) < k
        return among

    def _reserve(self, num_rows: int) -> None:
        have = len(self._counts)
        if num_rows > have:
            grown = max(num_rows, have + have // 2)  # rows come one by one: copying for each would be quadratic
            self._counts.frombytes(bytes(8 * (grown - have)))
            self._place.extend(range(have, grown))
            self._order += range(have, grown)

    def _raise_count(self, row: int) -> None:
        count = self._counts[row]
        self._swap(row, self._above[count])
        self._above[count] += 1
        if count + 1 == len(self._above):
            self._above.append(0)
        self._counts[row] = count + 1

    def _lower_count(self, row: int) -> None:
        count = self._counts[row]
        self._swap(row, self._above[count - 1] - 1)
        self._above[count - 1] -= 1
        self._counts[row] = count - 1

    def _swap(self, row: int, place: int) -> None:
        order, other, mine = self._order, self._order[place], self._place[row]
        order[place], order[mine] = row, other
        self._place[row], self._place[other] = place, mine
