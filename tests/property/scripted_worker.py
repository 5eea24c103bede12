"""Worker processes on the scripted broker: the real WorkerProcess and all below it, but for the clients and the model.

A process can be killed at any instant, or stand still and come back as a zombie that does not know what happened meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextvars import ContextVar
from typing import Any

from intentrec_core.errors import Fenced, IntentRecError, NotDrained
from intentrec_core.history.history import EventLayout
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.worker_process import WorkerParts, WorkerProcess
from tests.property.scripted_broker import ScriptedBroker
from tests.property.scripted_group import REBALANCE_TIMEOUT_S, SESSION_TIMEOUT_S, ScriptedGroup
from tests.property.virtual_time import VirtualLoop
from tests.worlds.counting import CountingPipeline
from tests.worlds.tiny_world import TinyWorld

#: Of a domain whose contexts are short: anchors move, and plays can be too late.
LAYOUT: EventLayout = TinyWorld().layout
#: Nobody reads them, and a registry takes longer than a schedule.
_METRICS = Metrics()
_CURRENT: ContextVar[ScriptedProcess] = ContextVar("process")


def current_process() -> ScriptedProcess:
    """Whose code runs."""
    return _CURRENT.get()


def running_process() -> ScriptedProcess | None:
    """The same; None where it has no owner."""
    return _CURRENT.get(None)


class World:
    """A broker, a group, processes, and the loop all of it runs on."""

    def __init__(self, loop: VirtualLoop, *, seed: int = 0, num_partitions: int = 2, **options: Any) -> None:
        self.loop = loop
        self.transactional = options.pop("transactional", True)
        #: Whether a worker takes itself for overloaded, which may be said of any micro-batch.
        self.overloaded = options.pop("overloaded", False)
        #: How likely a member is not cached, so that their answers are held back.
        self.cold_ratio = options.pop("cold_ratio", 0.0)
        #: Small, so that a checkpoint does not fit one batch; without transactions half a checkpoint would be a torn state.
        self.batch_bytes = 700 if self.transactional else 1 << 20
        self.broker = ScriptedBroker(seed, num_partitions)
        self.group = ScriptedGroup(loop, num_partitions)
        self.processes: list[ScriptedProcess] = []
        self.layout = LAYOUT
        self.settings = _settings(
            max_batch=5,
            batch_deadline_ms=0,
            session_timeout_s=SESSION_TIMEOUT_S,
            rebalance_timeout_s=REBALANCE_TIMEOUT_S,
            **options,
        )

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs the world until ``coroutine`` is done. Raises: what it raised, or what an answer or an oracle did meanwhile."""
        raised: list[BaseException] = []

        def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if "handle" in context:  # a callback; errors of tasks and futures are their owner's business
                raised.append(context["exception"])

        self.loop.set_exception_handler(note)
        try:
            self.loop.run_until_complete(coroutine)
        finally:
            if raised:
                raise raised[0]

    def start(self) -> ScriptedProcess:
        """One more worker."""
        process = ScriptedProcess(self, f"worker-{len(self.processes)}")
        self.processes.append(process)
        process.start()
        return process

    def keep_running(self, num_workers: int) -> None:
        """What Kubernetes does. Only a zombie may end by itself, and only one that was stopped without having drained."""
        for process in self.processes:
            assert process.error is None or isinstance(process.error, Fenced | NotDrained), process.error
        while len(self.alive) < num_workers:
            self.start()

    @property
    def alive(self) -> list[ScriptedProcess]:
        """Processes that have not ended, in the order they were started."""
        return [process for process in self.processes if not process.ended]


class ScriptedProcess:
    """One worker process. ``error`` is what it ended with, once it has."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.ended = self.killed = False
        self.error: IntentRecError | None = None
        #: How long the next micro-batches take, before it is as usual again.
        self.think_s: deque[float] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._going = asyncio.Event()
        self._going.set()
        self._process = WorkerProcess(world.settings, _METRICS, self._parts)

    def start(self) -> None:
        """Begins to run."""
        _CURRENT.set(self)
        try:
            self.world.loop.create_task(self._main(), name=self.name)
        finally:
            _CURRENT.set(None)  # no code of a worker runs

    def stop(self) -> None:
        """SIGTERM."""
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self.ended = self.killed = True
        self._going.set()
        for task in list(self._tasks):
            task.cancel()

    def freeze(self) -> None:
        """SIGSTOP: it gets no further than its next call to the broker, or the answer to its last."""
        self._going.clear()

    def thaw(self) -> None:
        """SIGCONT."""
        self._going.set()

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return not self._going.is_set()

    async def running(self) -> None:
        """Passed at every call to the broker, before and after."""
        await self._going.wait()
        if self.killed:
            raise asyncio.CancelledError

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task of this process."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _main(self) -> None:
        try:
            await self._process.run()
        except IntentRecError as error:
            self.error = error
        finally:
            self.ended = True

    @contextlib.asynccontextmanager
    async def _parts(self, num_partitions: int) -> AsyncIterator[WorkerParts]:
        world = self.world
        pipeline = CountingPipeline(num_partitions, LAYOUT, _METRICS)
        if world.cold_ratio:
            pipeline.cold = lambda _: world.broker.rng.random() < world.cold_ratio
        yield WorkerParts(pipeline=pipeline, layout=LAYOUT, fingerprint=LAYOUT.domain.fingerprint)


@functools.cache
def _settings(**options: Any) -> Settings:
    return Settings.load(**options)
