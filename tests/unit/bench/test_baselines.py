"""The baselines do what the benches say of them; otherwise their ratios would compare other things."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from intentrec_core.history.changelog_codec import Restorer, encode_changes
from intentrec_core.history.history import EventLayout
from stream.kafka.publisher import fill
from stream.settings import Settings
from stream.wire.records import OutputKind, PartitionResult
from tests.bench.baselines.pass_through import PassThrough
from tests.bench.baselines.raw_loop import RawLoop
from tests.bench.worker_plays import WINDOW, domain_text, history, load_domain, plays, user_id
from tests.worlds.bundle_world import Record

NUM_ACTIVE, NUM_PLAYS = 5, 40
#: Behind the event id, up to before the closing brace.
BODIES = {OutputKind.RECOMMENDATION: b',"list":"' + b"x" * 900 + b'"', OutputKind.INTENT: b',"intents":1'}


def records() -> list[Record]:
    made = plays(NUM_PLAYS, num_active=NUM_ACTIVE)
    return [Record(1 + i, value, key, timestamp=1_800_000_000_000) for i, (key, value) in enumerate(made)]


def pass_through() -> tuple[PassThrough, EventLayout]:
    layout = EventLayout(load_domain())
    pipeline = PassThrough(layout, 1, BODIES)
    pipeline.open_partition(0, {user_id(number): history(layout, number) for number in range(NUM_ACTIVE)})
    return pipeline, layout


def processed() -> PartitionResult:
    (result,) = pass_through()[0].encode({0: records()})
    return result


@dataclass
class Builder:
    """A record batch that takes everything."""

    records: list[dict[str, Any]] = field(default_factory=list)

    def append(self, **record: Any) -> object:
        self.records.append(record)
        return self

    def close(self) -> None:
        pass


@dataclass
class Producer:
    """Keeps what is sent, by topic."""

    sent: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def create_batch(self) -> Builder:
        return Builder()

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> asyncio.Future[object]:
        self.sent[topic] += builder.records
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def test_members_contexts_are_full_before_the_first_play() -> None:
    layout = EventLayout(load_domain())
    lengths = [history(layout, number).num_events(layout) for number in range(200)]
    assert min(lengths) > WINDOW
    assert max(lengths) <= 2 * WINDOW
    assert 250 < sum(lengths) / len(lengths) < 262


def test_the_pass_through_folds_every_play_and_writes_it_to_the_changelog() -> None:
    pipeline, layout = pass_through()
    before = {user_id(number): history(layout, number) for number in range(NUM_ACTIVE)}
    (result,) = pipeline.respond(pipeline.encode({0: records()}))
    assert result.outcomes.num_applied == NUM_PLAYS
    assert result.next_offset == NUM_PLAYS + 1
    assert len({output.headers[0] for output in result.outputs}) == 3 * NUM_PLAYS
    assert {output.kind for output in result.outputs} == {
        OutputKind.RECOMMENDATION,
        OutputKind.INTENT,
        OutputKind.LATE,
    }
    restorer = Restorer(layout)
    for user, held in before.items():
        for key, value in encode_changes(layout, user, held, first_changed=0, anchor_moved=False).items():
            restorer.feed(key, value)
    for key, value in result.changelog.items():
        restorer.feed(key, value)
    restored, _ = restorer.finish()
    assert sum(held.count for held in restored.values()) == NUM_PLAYS + sum(held.count for held in before.values())


def test_the_raw_loop_writes_the_bytes_that_the_pass_through_writes(tmp_path: Path) -> None:
    (tmp_path / "recommendation.json").write_bytes(BODIES[OutputKind.RECOMMENDATION])
    (tmp_path / "intent.json").write_bytes(BODIES[OutputKind.INTENT])
    (tmp_path / "movielens.toml").write_text(domain_text())
    settings = Settings.load(domain=str(tmp_path / "movielens.toml"))
    producer, batch = Producer(), records()

    async def run() -> None:
        loop = RawLoop(settings, None, producer, tmp_path)
        await loop._answer(0, batch)
        await loop._write_changes()

    asyncio.run(run())
    topics = {
        OutputKind.RECOMMENDATION: settings.recommendations_topic,
        OutputKind.INTENT: settings.intents_topic,
        OutputKind.LATE: settings.late_topic,
    }
    result = processed()
    for kind, topic in topics.items():
        expected = BatchBuilder(1 << 20, 0)
        outputs = [output for output in result.outputs if output.kind is kind]
        fill(expected, outputs, 1_800_000_000.012345, takes_latency=kind.takes_latency)
        found = producer.sent[topic]
        assert [(r["key"], len(r["value"]), r["headers"]) for r in found] == [
            (r.key, len(r.value), list(r.headers)) for r in MemoryRecords(bytes(expected._build())).next_batch()
        ]
    changes = producer.sent[settings.changelog_topic]
    assert len(changes) == len({record.key for record in batch})
    written, ours = sum(len(r["value"]) for r in changes), sum(len(v or b"") for v in result.changelog.values())
    assert 0.4 < written / ours < 2.5
