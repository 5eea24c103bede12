"""Commands that talk to a broker, on a real one: topics, replay, simulate, train --announce, rollback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.cli import root
from stream.cli.bundle_store import newest_announced
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from stream.wire.routing import key_hash

SMALL = ("--domain", "video", "--epochs", "1", "--width", "16", "--layers", "1", "--device", "cpu", "--no-references")


def run(*arguments: str) -> int:
    return root.run(list(arguments))


@pytest.fixture
def settings(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Topics and store of this test's own, for every command through the environment."""
    for name, value in {
        "BROKER": broker.address,
        "APP_ID": "cli",
        "NUM_PARTITIONS": "3",
        "PLAYS_TOPIC": "cli-plays",
        "RECOMMENDATIONS_TOPIC": "cli-recommendations",
        "INTENTS_TOPIC": "cli-intents",
        "DEAD_LETTER_TOPIC": "cli-dlq",
        "LATE_TOPIC": "cli-late",
        "MODEL_UPDATES_TOPIC": "cli-updates",
        "BUNDLE_URL": str(tmp_path / "bundles"),
        "CACHE_DIR": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(f"INTENTREC_{name}", value)
    return Settings.load()


async def plays(settings: Settings) -> list[tuple[int, bytes]]:
    """Partition and key of every play on the topic."""
    consumer = AIOKafkaConsumer(**settings.connection())
    await consumer.start()
    try:
        sources = [TopicPartition(settings.plays_topic, p) for p in range(settings.num_partitions)]
        consumer.assign(sources)
        await consumer.seek_to_beginning(*sources)
        ends = await consumer.end_offsets(sources)
        found: list[tuple[int, bytes]] = []
        while len(found) < sum(ends.values()):
            batches = await consumer.getmany(timeout_ms=500)
            found += [(r.partition, r.key) for records in batches.values() for r in records]
        return found
    finally:
        await consumer.stop()


@pytest.mark.slow
def test_plays_announcements_and_rollbacks_reach_the_broker(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("topics") == 0
    assert "created" in capsys.readouterr().out
    assert run("topics") == 0
    assert "created" not in capsys.readouterr().out

    world = str(tmp_path / "world")
    assert run("simulate", "--out", world, "--plays", "600", "--users", "30", "--items", "150") == 0
    assert run("replay", "--data", world, "--plays", "400") == 0
    assert run("simulate", "--plays", "100", "--users", "30", "--items", "150", "--seed", "1", "--rate", "1000") == 0
    found = asyncio.run(plays(settings))
    assert len(found) == 500
    assert all(partition == key_hash(key) % settings.num_partitions for partition, key in found)

    capsys.readouterr()
    assert run("bundle", "rollback") == 2, "nothing was announced yet"
    assert "name the version" in capsys.readouterr().err
    assert run("train", "--data", world, *SMALL, "--announce") == 0
    first = newest_announced(settings)
    assert run("train", "--data", world, *SMALL, "--announce", "--seed", "1") == 0
    second = newest_announced(settings)
    assert first is not None
    assert second not in (None, first)
    assert run("bundle", "rollback") == 2, "the second one has no parent"
    assert run("bundle", "rollback", first) == 0
    assert newest_announced(settings) == first
