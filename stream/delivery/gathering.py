"""Whether the broker gathers plays before it answers a fetch: only where plays are many.

A fetch and a micro-batch cost nearly the same for one play as for many. Fetched as they come, plays cost about twice the CPU time
each, and where they are few they are answered in half of the time. The default bound lies between two measured rates (decision
106): 200 plays/s gain by it, 400 are answered no sooner. A fetch lists every partition, so with many of them it costs more, and
fewer plays are many.
"""

from __future__ import annotations

from collections.abc import Callable

#: A window must see enough plays to tell a rate from chance: 100 of them at 200 plays/s, plus or minus 10. With more partitions
#: than are free, where the bounds are lower, it is longer in the same proportion.
WINDOW_S = 0.5
#: Gathering ends below this part of the rate above which it begins. With a bound of 300 plays/s, 38 plays of a window lie between
#: the two, three times what a window differs by chance: a rate near one bound seldom crosses both.
_END_RATIO = 0.75
#: Up to so many, what a fetch costs hardly depends on the number of partitions; from there on it grows with it.
_FREE_PARTITIONS = 8


class Gathering:
    """Decides by the rate of plays of one consumer, measured in windows; it does not gather at first. Only the clock is read.

    ``above_per_s``: plays/s from which on it gathers, with up to eight partitions, and in proportion fewer with more; it ends
    below three quarters of that. 0: it always gathers.
    """

    def __init__(self, above_per_s: float, clock: Callable[[], float]) -> None:
        self._begin = above_per_s * WINDOW_S
        self._end = self._begin * _END_RATIO
        self._clock = clock
        self._since_s = clock()
        self._num_plays = 0
        self.active = not above_per_s

    def fetched(self, num_plays: int, num_partitions: int) -> bool:
        """Counts the plays of a fetch, also of an empty one; returns whether the next fetch is to be gathered.

        It begins as soon as a window has had enough plays, within the window. It ends with a whole window that had few.
        """
        self._num_plays += num_plays
        now_s = self._clock()
        if self._num_plays >= self._begin:
            self.active = True
        num_windows = (now_s - self._since_s) / (WINDOW_S * max(1.0, num_partitions / _FREE_PARTITIONS))
        if num_windows >= 1:
            if self._num_plays < self._end * num_windows:
                self.active = False
            self._since_s, self._num_plays = now_s, 0
        return self.active
