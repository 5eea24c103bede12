"""How many requests a client may send: so many a second on average, and twice as many at once (GCRA, a leaky bucket)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from stream.gateway.problems import Problem, ProblemKind

#: Clients whose requests are counted; of more than these, the one that was quiet longest is forgotten.
_MAX_CLIENTS = 100_000
_BURST_S, _ROUNDING_S = 2.0, 1e-6


class RequestRates:
    """Owned by the event loop. ``per_s`` 0: no limit."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        #: Of each client, when the requests that it has sent would have been due, had it kept to the average.
        self._due_s: OrderedDict[str, float] = OrderedDict()

    def check(self, client: str) -> None:
        """Counts a request.

        Raises: Problem (too_many_requests) with the time to wait.
        """
        if not self._per_s:
            return
        now_s, step_s = self._clock(), 1.0 / self._per_s
        due_s = max(self._due_s.get(client, now_s), now_s)
        ahead_s = due_s + step_s - now_s
        burst_s = max(_BURST_S, step_s)
        if ahead_s > burst_s + _ROUNDING_S:
            raise Problem(
                ProblemKind.TOO_MANY_REQUESTS,
                f"allowed: {self._per_s:g} requests a second, and {self._per_s * burst_s:g} at once",
                retry_after_s=ahead_s - burst_s,
            )
        self._due_s[client] = due_s + step_s
        self._due_s.move_to_end(client)
        if len(self._due_s) > _MAX_CLIENTS:
            self._due_s.popitem(last=False)
