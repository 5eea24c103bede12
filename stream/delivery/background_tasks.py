"""The asyncio tasks of a worker: kept until they are done; one that raises ends the process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from intentrec_core.errors import EngineError, IntentRecError

logger = logging.getLogger(__name__)


class BackgroundTasks:
    """Owned by the running event loop. ``fatal`` is done with the error for which the process must end."""

    def __init__(self) -> None:
        self.fatal: asyncio.Future[IntentRecError] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs a coroutine in the background. One that raises ends the process."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def end_process(self, error: BaseException) -> None:
        """Reports an error that reopening a partition cannot fix; the first one counts."""
        if not self.fatal.done():
            logger.error("this process must end: %s", error)  # logged here, because the end of the process may hang
            self.fatal.set_result(error if isinstance(error, IntentRecError) else EngineError(repr(error)))

    async def stop(self) -> None:
        """Cancels all tasks and waits for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # Not cancelled by this code: a client library did it (stream.kafka.clients), and this work would never be resumed.
            if not task.cancelling():
                self.end_process(EngineError(f"{task.get_name()} was cancelled from within"))
        elif (error := task.exception()) is not None:
            logger.error("task %s ended", task.get_name(), exc_info=error)
            self.end_process(EngineError(f"{task.get_name()}: {error!r}"))
