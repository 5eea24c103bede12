"""Popularity of items in a sliding window of event time, with a ranking that is kept up to date play by play.

A count changes by one, so an item moves only to the edge of the group of items with the same count: one swap per play,
no sorting. The current time is the newest event time added, never a clock. A play that is already older than the window
has no effect.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400.0
WEEK_S = 604_800.0
#: The place of a row without plays: after all others.
_NOT_PLAYED = np.iinfo(np.int64).max


class PopularWindow:
    """Counts of plays by item row over the last ``window_s`` seconds of event time, and the ranking by count.

    ``num_added``: how often :meth:`add` was called.

    Rows are any integers above 0; row 0 (unknown item) is never counted. The order of rows with equal counts depends on
    the sequence of calls and has no meaning.

    Raises: ValueError when ``window_s`` is not above 0.
    Cost: O(log P) per play added, P the number of plays in the window; memory O(P + highest row).
    """

    def __init__(self, window_s: float = WEEK_S, num_rows: int = 0) -> None:
        if not window_s > 0:
            raise ValueError(f"window_s is {window_s}; allowed: above 0")
        self.window_s = window_s
        self.now_s = float("-inf")
        self.num_added = 0
        self._plays: list[
            tuple[float, int, int]
        ] = []  # a heap of (time, row, number): plays of different members arrive out of order
        self._num_plays = 0
        self._counts = array("q")  # as fast as a list for single values, and numpy reads it without a copy
        self._order = array("q")  # rows, highest count first
        self._place = array("q")  # each row's index in the order
        self._above: list[int] = [0]  # at index c: the number of rows with more than c plays
        self._reserve(max(1, num_rows))

    def __len__(self) -> int:
        """Number of plays in the window."""
        return self._num_plays

    def add(self, row: int, ts_s: float) -> None:
        """Counts one play at event time ``ts_s``, and removes plays that are ``window_s`` or more older than the newest
        play.
        """
        self.num_added += 1
        if row > 0 and ts_s > self.now_s - self.window_s:
            self._reserve(row + 1)
            heapq.heappush(self._plays, (ts_s, row, 1))
            self._raise_count(row)
        self.advance(ts_s)

    def seed(self, counts: Sequence[float] | NDArray[np.float32], ts_s: float) -> None:
        """Starts from the plays that a bundle counted up to ``ts_s``. All of them leave the window at the same time."""
        self._reserve(len(counts))
        for row, count in enumerate(counts):
            number = int(count)
            if row and number > 0:
                heapq.heappush(self._plays, (ts_s, row, number))
                for _ in range(number):
                    self._raise_count(row)
        self.advance(ts_s)

    def advance(self, ts_s: float) -> None:
        """Moves the window forward to event time ``ts_s``. An earlier time has no effect."""
        self.now_s = max(self.now_s, ts_s)
        while self._plays and self._plays[0][0] <= self.now_s - self.window_s:
            _, row, number = heapq.heappop(self._plays)
            for _ in range(number):
                self._lower_count(row)

    def count(self, row: int) -> int:
        """Number of plays of one row in the window."""
        return self._counts[row] if 0 <= row < len(self._counts) else 0

    def counts(self, num_rows: int) -> NDArray[np.float32]:
        """Numbers of plays of rows 0 to ``num_rows - 1``. Shape: f32[num_rows]."""
        counts = np.zeros(num_rows, dtype=np.float32)
        known = np.frombuffer(self._counts, dtype=np.int64, count=min(num_rows, len(self._counts)))
        counts[: len(known)] = known
        return counts

    def counts_and_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Plays of each row, and the rows by their plays, most first: read-only views that the next play changes.

        Shapes: i64[R], i64[R], R at least the highest row that was counted.
        """
        views = np.frombuffer(self._counts, dtype=np.int64), np.frombuffer(self._order, dtype=np.int64)
        for view in views:
            view.flags.writeable = False
        return views

    def top(self, k: int, excluded: Collection[int] = ()) -> list[int]:
        """The ``k`` most played rows, most played first, without ``excluded`` rows and rows without plays.

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
        """For each row, whether it is among the ``k`` that :meth:`top` returns with the ``excluded`` rows given for it
        (which may repeat, or be 0).

        Shapes: rows i64[N], excluded i64[any] per row -> bool[N].
        Cost: a few array operations, and O(number of its excluded rows) for each row among the ``k`` plus that many
        most played.
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
            grown = max(
                num_rows, have + have // 2
            )  # grows in steps: rows arrive one by one, and copying for each would be quadratic
            self._counts.frombytes(bytes(8 * (grown - have)))
            self._place.extend(range(have, grown))
            self._order.extend(range(have, grown))

    def _raise_count(self, row: int) -> None:
        count = self._counts[row]
        self._swap(row, self._above[count])
        self._above[count] += 1
        if count + 1 == len(self._above):
            self._above.append(0)
        self._counts[row] = count + 1
        self._num_plays += 1

    def _lower_count(self, row: int) -> None:
        count = self._counts[row]
        self._swap(row, self._above[count - 1] - 1)
        self._above[count - 1] -= 1
        self._counts[row] = count - 1
        self._num_plays -= 1

    def _swap(self, row: int, place: int) -> None:
        order, other, mine = self._order, self._order[place], self._place[row]
        order[place], order[mine] = row, other
        self._place[row], self._place[other] = place, mine
