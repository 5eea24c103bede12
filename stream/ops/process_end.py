"""Ends a worker or trainer process: in good order on SIGTERM or SIGINT, by force at the drain deadline.

SIGTERM, SIGINT   process.stop(): close in order, then exit 0; a second signal changes nothing
on_ending         starts the deadline, whether a signal or an error began the end
past the deadline the process exits with process.exit_code, whatever still hangs
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from intentrec_core.errors import NotDrained
from stream.ops.early_end import END_SIGNALS

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

EXIT_NOT_DRAINED = NotDrained.exit_code


class EndingProcess(Protocol):
    """A process that closes in order when stopped, and that may hang while it closes.

    It calls ``on_ending`` once, when its end begins, and keeps ``exit_code`` at the code to exit with if it hangs from here on.
    """

    settings: Settings
    on_ending: Callable[[], None]
    exit_code: int

    def stop(self) -> None:
        """Requests an orderly end."""
        ...

    async def run(self) -> None:
        """Works until stopped."""
        ...


async def run_until_signal(process: EndingProcess) -> None:
    """Runs a process; SIGTERM and SIGINT stop it. Once its end has begun, it is gone within ``drain_deadline_s``.

    Raises: whatever ``process.run`` raises.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        logger.info("%s: stopping", number.name)
        process.stop()

    def start_deadline() -> None:
        # A thread, because the event loop may be closed while Python still waits for another thread that hangs.
        deadline = threading.Timer(process.settings.drain_deadline_s, _force_exit, [process])
        deadline.daemon = True
        deadline.start()

    process.on_ending = start_deadline
    for number in END_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await process.run()
    finally:
        # Python may still wait for a thread. The exit code is decided, and another signal must not replace it: once the loop
        # is closed, a signal would have its default effect again.
        for number in END_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def first_to_end(*work: Coroutine[Any, Any, None]) -> None:
    """Runs all coroutines until one ends or fails, then cancels the rest and waits for them.

    Raises: the error of the one that failed, as it is: its exit code is that of the process.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _force_exit(process: EndingProcess) -> None:
    # A thread that hangs cannot be cancelled, and Python would wait for it. Nothing is lost: uncommitted plays are read again.
    logger.error("not stopped within the drain deadline: forcing exit with code %d", process.exit_code)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(process.exit_code)
