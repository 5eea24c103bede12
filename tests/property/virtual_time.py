"""An event loop on virtual time: whole minutes of timeouts, retries and rebalances pass in milliseconds, the same way each time.

Nothing waits. When no callback is ready the clock jumps to the next timer; when there is none either, everything waits for
something that will never come, and that is an error. "Threads" are timers of the same loop, so that there is one order of events.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Deadlock(AssertionError):
    """Every task waits, and no timer is set."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` begins at 0 and moves only when nothing is ready."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Jumping(self._jump))
        # For asyncio.to_thread: run where it is called, which is between two callbacks too.
        self.set_default_executor(VirtualThread(max_workers=1))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def _jump(self, by_s: float) -> None:
        self._now_s += by_s


class _Jumping(selectors.SelectSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Deadlock("every task waits and no timer is set")
        if not ready and timeout:
            self._jump(timeout)
        return ready


class VirtualThread(ThreadPoolExecutor):
    """One thread as the loop sees it: jobs one after another, each of which takes ``next_s()`` seconds.

    ``alive`` asks whether the process it belongs to still runs; jobs of a dead one are never done.
    """

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        super().__init__(max_workers=1, thread_name_prefix=thread_name_prefix)
        self.next_s: Callable[[], float] = lambda: 0.0
        self.alive: Callable[[], bool] = lambda: True
        self._free_at_s = 0.0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See Executor."""
        loop, job = asyncio.get_running_loop(), Future[Any]()

        def run() -> None:
            if not self.alive() or not job.set_running_or_notify_cancel():
                return
            try:
                job.set_result(function(*args, **kwargs))
            except Exception as error:
                job.set_exception(error)

        # A microsecond apart: timers of one instant may run in any order.
        self._free_at_s = max(loop.time(), self._free_at_s + 1e-6) + self.next_s()
        loop.call_at(self._free_at_s, run)
        return job
