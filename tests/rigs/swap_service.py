"""A worker's model service in this process, on a broker: receives announcements, and returns the bundle that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer

from stream.bundles.announcements import ANNOUNCEMENT_KEY, announce
from stream.bundles.hot_swap import HotSwap
from stream.ops.metrics import Metrics
from stream.pipeline.pipeline import Pipeline
from stream.settings import Settings
from stream.wire.codec import decode_recommendation
from stream.wire.messages import Announcement
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import PlayLog, make_pipeline


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(limited())


async def send(settings: Settings, *values: bytes) -> None:
    async with AIOKafkaProducer(**settings.connection()) as producer:
        for value in values:
            await producer.send_and_wait(settings.model_updates_topic, value, key=ANNOUNCEMENT_KEY, partition=0)


async def tell(settings: Settings, bundle: str, parent: str | None = None) -> Announcement:
    return await announce(settings, bundle=bundle, url=settings.bundle_url, parent=parent)


class Service:
    """A pipeline on its inference thread with a hot swap beside it."""

    def __init__(self, swap: HotSwap, pipeline: Pipeline) -> None:
        self.swap, self.pipeline, self.log = swap, pipeline, PlayLog()
        self._thread = ThreadPoolExecutor(max_workers=1)
        #: That answered, by member, in order.
        self.versions: dict[str, list[str]] = {}

    async def on_inference_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def play(self, num: int = 8) -> None:
        """Serves a micro-batch; every output names the bundle that serves, or the one that takes its members over."""
        low = len(self.log.records)
        for i in range(low, low + num):
            self.log.play(f"user-{i % 5}", i % 30, 100.0 * i)
        (result,) = await self.on_inference_thread(self.pipeline.process, {0: self.log.records[low:]})
        values = [o.value for o in result.outputs if o.kind is OutputKind.RECOMMENDATION]
        assert len(values) == num
        for answer in [decode_recommendation(value) for value in values]:
            self.versions.setdefault(answer.user_id, []).append(answer.bundle)

    async def until(self, bundle: str) -> None:
        """Serves until ``bundle`` does."""
        while self.pipeline.serving.version != bundle:
            await self.play()
            await asyncio.sleep(0.02)
        await self.play()

    def count(self, name: str, **labels: str) -> float:
        return self.pipeline.metrics.registry.get_sample_value(f"intentrec_{name}", labels) or 0.0

    async def until_refused(self, reason: str, times: int = 1) -> None:
        while self.count("bundle_rejections_total", reason=reason) < times:
            await self.play()
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Service]:
    metrics = Metrics()
    async with HotSwap(settings, metrics) as swap:
        service = Service(swap, make_pipeline(await swap.first(), metrics))
        running = asyncio.create_task(swap.run(service.pipeline, service.on_inference_thread))
        try:
            yield service
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
