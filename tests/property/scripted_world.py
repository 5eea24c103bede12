"""A world of scripted workers: replaces Kafka, Faust and threads for the duration of a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from stream import worker_process
from stream.delivery import changelog, inference_loop
from stream.delivery.overload import Overload
from stream.kafka import clients
from stream.ops import health
from stream.settings import Settings
from tests.property.scripted_app import ScriptedApp
from tests.property.scripted_clients import ScriptedProducer, ScriptedRecoveryConsumer
from tests.property.scripted_worker import World, current_process, running_process
from tests.property.virtual_time import VirtualLoop, VirtualThread


class _Thread(VirtualThread):
    """The inference thread of a process."""

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        super().__init__(max_workers, thread_name_prefix)
        process = current_process()
        usual = process.world.broker.rng.choice
        self.next_s = lambda: process.think_s.popleft() if process.think_s else usual((0.001, 0.004, 0.05, 1.0))
        self.alive = lambda: not process.killed


class _NoHealth:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    async def start(self) -> int:
        return 0

    async def stop(self) -> None:
        pass


@contextlib.contextmanager
def scripted_world(**options: Any) -> Iterator[World]:
    """A world whose workers meet scripted clients; ends with every task of it gone."""
    loop = VirtualLoop()
    loop.set_task_factory(_of_its_process)
    with pytest.MonkeyPatch.context() as patch:
        world = World(loop, **options)

        async def transactional(_: Settings) -> bool:
            return world.transactional

        async def num_partitions(_: Settings) -> int:
            return world.broker.num_partitions

        patch.setattr(health, "HealthServer", _NoHealth)
        patch.setattr(worker_process, "uses_transactions", transactional)
        patch.setattr(worker_process, "check_topics", num_partitions)
        patch.setattr(worker_process, "create_app", ScriptedApp)
        patch.setattr(worker_process, "source_of", lambda app: app.consumer)
        patch.setattr(worker_process, "deliver_to", lambda app, sink: app.consumer.deliver_to(sink))
        patch.setattr(worker_process, "AIOKafkaProducer", ScriptedProducer)
        patch.setattr(changelog, "AIOKafkaProducer", ScriptedProducer)
        patch.setattr(clients, "AIOKafkaConsumer", ScriptedRecoveryConsumer)
        patch.setattr(inference_loop, "ThreadPoolExecutor", _Thread)
        if world.overloaded:
            patch.setattr(Overload, "coalesces", lambda _: world.broker.rng.random() < 0.7)
        try:
            yield world
        finally:
            _end(world)


def _of_its_process(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
    task = asyncio.Task(coroutine, loop=loop, **options)
    process = running_process()
    if process is not None:
        process.adopt(task)
    return task


def _end(world: World) -> None:
    for process in world.processes:
        process.kill()
    for _ in range(20):
        left = asyncio.all_tasks(world.loop)
        for task in left:
            task.cancel()
        if not left:
            break
        world.loop.run_until_complete(asyncio.wait(left, timeout=60))
    world.loop.close()
