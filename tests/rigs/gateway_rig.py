"""Gateways on a real broker, in the test's process or in one of their own. Messages are written to the topics as workers do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer

from stream.gateway.process import GatewayProcess
from stream.local_kafka.ports import free_port
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.wire.routing import home_partition
from tests.rigs.rig import ANSWERS_WITHIN_S, NUM_PARTITIONS, Rig, Worker

WITHIN_S = 40.0


@dataclass(eq=False)
class RunningGateway:
    """A gateway at a URL."""

    url: str
    client: aiohttp.ClientSession
    process: GatewayProcess | None = None

    def end_streams(self) -> None:
        """Ends all streams as if their members had moved; of a gateway in this process."""
        assert self.process is not None
        assert self.process.gateway is not None
        self.process.gateway.streams.end_all("moved")

    async def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        """Status and JSON of a request."""
        async with self.client.request(method, self.url + path, **options) as answer:
            return answer.status, json.loads(await answer.read())

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a request that must be answered."""
        status, found = await self.ask(path, **options)
        assert status == 200, found
        return found

    async def partitions(self) -> list[int]:
        """The partitions that it has, once it knows their members; none before."""
        try:
            _, found = await self.ask("/v1/status")
        except aiohttp.ClientError:
            return []
        gateway = found["gateway"]
        return gateway["partitions"] if gateway["ready"] else []

    async def answers(self, path: str, event_id: str) -> bool:
        """Whether a path of a member tells of this play by now."""
        status, found = await self.ask(path)
        return bool(status == 200 and found.get("event_id") == event_id)


@contextlib.asynccontextmanager
async def running(settings: Settings, **options: Any) -> AsyncIterator[RunningGateway]:
    """A gateway with these settings in this process, ready; ended at the end."""
    own = settings.model_copy(
        update={"gateway_port": 0, "metrics_port": 0, "gateway_heartbeat_s": 0.5, "gateway_read_back_s": 3600.0}
        | options
    )
    process = GatewayProcess(own, Metrics())
    task = asyncio.create_task(process.run())
    async with aiohttp.ClientSession() as client:
        try:
            await until(lambda: process.not_ready() is None, task)
            yield RunningGateway(f"http://127.0.0.1:{process.port}", client, process)
        finally:
            process.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def a_process_of_its_own(rig: Rig, **environment: str) -> AsyncIterator[tuple[RunningGateway, Worker]]:
    """A gateway as ``intentrec gateway`` runs it, ready."""
    port = free_port()
    process = rig.start_worker(module="stream.cli", arguments=["gateway", "--port", str(port)], **environment)
    async with aiohttp.ClientSession() as client:
        gateway = RunningGateway(f"http://127.0.0.1:{port}", client)
        await until(gateway.partitions, within_s=ANSWERS_WITHIN_S)
        yield gateway, process


async def until(holds: Callable[[], Any], *tasks: asyncio.Task[None], within_s: float = WITHIN_S) -> Any:
    """Waits for what the test asserts, which may be a coroutine's result; fails when a task has ended before."""
    deadline_s = time.monotonic() + within_s
    while True:
        found = holds()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        for task in tasks:
            if task.done():
                task.result()
                raise AssertionError("the gateway ended")
        assert time.monotonic() < deadline_s, f"did not come to hold in {within_s} s"
        await asyncio.sleep(0.02)


@dataclass
class Messages:
    """Writes messages to the output topics."""

    settings: Settings
    producer: AIOKafkaProducer
    offsets: dict[int, int] = field(default_factory=dict)

    async def answer(
        self, user_id: str, *, bundle: str = "b000000000001", offset: int | None = None, **fields: Any
    ) -> int:
        """Both answers to a play of the member; returns its offset."""
        partition = home_partition(user_id.encode(), NUM_PARTITIONS)
        if offset is None:
            offset = self.offsets[partition] = self.offsets.get(partition, -1) + 1
        common = {
            "user_id": user_id,
            "session_id": "31668c8a8ef1f2a9",
            "event_id": f"e{offset}",
            "event_time": "2026-03-01T20:15:00.000Z",
            "bundle": bundle,
            "source": {"topic": self.settings.plays_topic, "partition": partition, "offset": offset},
            "latency_s": 0.025,
        }
        items = [{"item_id": f"item-{n}", "title": f"Item {n}", "score": 5.0 - n} for n in range(1, 6)]
        await self.send(self.settings.recommendations_topic, common | {"items": items, "fallback": "none"} | fields)
        intent = {
            "session_opened": False,
            "intents": {"genre": {"drama": 0.75, "comedy": 0.25}},
            "weights": {"genre": 1.0},
            "primary": {"head": "genre", "label": "drama", "probability": 0.75},
            "shifted": False,
        }
        await self.send(self.settings.intents_topic, common | intent | fields)
        return offset

    async def send(self, topic: str, message: dict[str, Any]) -> None:
        await self.producer.send_and_wait(topic, json.dumps(message).encode(), key=message["user_id"].encode())


@contextlib.asynccontextmanager
async def messages(settings: Settings) -> AsyncIterator[Messages]:
    """A writer of messages."""
    producer = AIOKafkaProducer(**settings.connection())
    await producer.start()
    try:
        yield Messages(settings, producer)
    finally:
        await producer.stop()


@dataclass
class Event:
    """One server-sent event."""

    kind: str
    data: Any
    id: str | None


class EventReader:
    """Reads a stream as a browser does."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments = 0

    async def next(self, within_s: float = WITHIN_S) -> Event | None:
        """The next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(within_s):
            while True:
                line = (await self.answer.content.readline()).decode()
                if not line:
                    return None
                if line == "\n":
                    if "data" in fields:
                        return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
                    continue
                if line.startswith(":"):
                    self.comments += 1
                    continue
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value


@contextlib.asynccontextmanager
async def stream(gateway: RunningGateway, path: str, **headers: str) -> AsyncIterator[EventReader]:
    """An open stream of a gateway."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with gateway.client.get(gateway.url + path, headers=headers, timeout=timeout) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield EventReader(answer)
