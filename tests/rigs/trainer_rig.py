"""A trainer in this process, on a broker: its settings, plays for it, and what it announced, logged and counted."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaProducer

from intentrec_core.plays.table import PlayRow
from stream.bundles.announcements import AnnouncementFollower
from stream.kafka.replay import play_message
from stream.local_kafka.broker import Broker
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.trainer.app import TrainerProcess
from stream.trainer.event_log import EventLog
from stream.wire.codec import encode
from stream.wire.messages import Announcement
from stream.wire.routing import key_hash
from tests.worlds.trainer_world import DOMAIN_TEXT, WalkingWorld

NUM_PARTITIONS = 2


def make_settings(broker: Broker, folder: Path, **overrides: object) -> Settings:
    """Settings of an app of its own on the broker, everything on disk under ``folder``."""
    domain, items = folder / "tiny.toml", folder / "items.parquet"
    domain.write_text(DOMAIN_TEXT)
    WalkingWorld(num_items=24).catalogue.save(items)
    name = f"t{os.urandom(4).hex()}"
    topics = ("plays", "recommendations", "intents", "dead_letter", "late", "model_updates", "items", "item_counts")
    given: dict[str, object] = {f"{topic}_topic": f"{name}.{topic}" for topic in topics}
    given |= {
        "broker": broker.address,
        "app_id": name,
        "num_partitions": NUM_PARTITIONS,
        "domain": str(domain),
        "catalogue": items,
        "bundle_url": str(folder / "store"),
        "cache_dir": folder / "cache",
        "event_log_dir": folder / "log",
        "device": "cpu",
        "metrics_port": 0,
        "retrain_interval_s": 2,
        "retrain_budget_s": 60,  # all epochs, however slow the machine: a model cut short may be refused
        "retrain_min_plays": 400,
        "event_log_flush_s": 0.2,
    }
    return Settings(**(given | overrides))


async def send(settings: Settings, rows: Iterator[PlayRow]) -> int:
    """Produces plays as a producer would, each user to the partition of its key."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.broker, acks="all")
    await producer.start()
    sent = []
    for row in rows:
        key = row.user_id.encode()
        partition = key_hash(key) % NUM_PARTITIONS
        value = encode(play_message(row))
        sent.append(await producer.send(settings.plays_topic, value, key=key, partition=partition))
    await asyncio.gather(*sent)
    await producer.stop()
    return len(sent)


async def announcements(settings: Settings) -> list[Announcement]:
    async with AnnouncementFollower(settings) as follower:
        return await follower.read()


@asynccontextmanager
async def running(process: TrainerProcess) -> AsyncIterator[asyncio.Task[None]]:
    """The trainer in the background; ended with the block, and whatever it raised is raised."""
    task = asyncio.create_task(process.run())
    try:
        yield task
    finally:
        process.stop()
        await task


async def until(condition: Callable[[], object], deadline_s: float = 120.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.1)


async def until_answered(
    process: TrainerProcess, path: str, answer: tuple[int, str], deadline_s: float = 120.0
) -> None:
    """Returns when a health path answers with this status and text."""
    end, found = time.monotonic() + deadline_s, None
    while found != answer:
        assert time.monotonic() < end, f"{path} answers {found}"
        await asyncio.sleep(0.1)
        with suppress(aiohttp.ClientConnectionError):  # it has not begun to listen
            found = await health(process, path)


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"intentrec_{name}", labels) or 0.0


def logged_events(settings: Settings) -> list[str]:
    return EventLog(settings.event_log_dir, settings.plays_topic).plays().column("event_id").to_pylist()


async def health(process: TrainerProcess, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{process.health_port}{path}") as answer,
    ):
        return answer.status, (await answer.text()).strip()
