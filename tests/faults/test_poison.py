"""Thousands of invalid plays among valid ones: one dead letter each, original bytes, and exact neighbours."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from intentrec_core.times import iso_time
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from stream.trainer.event_log import EventLog
from tests.faults.poison import KINDS, NAME_HEADER, Poison, mixture
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.fault_report import FaultRow
from tests.rigs.odd_headers import send_with_odd_header
from tests.rigs.rig import NUM_PARTITIONS, Rig
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, counted, start_serving, until, world_plays
from tests.rigs.verdict import ReadBack, judge, read_all

KEPT_WHOLE_BYTES = 1_000_000
KEPT_OF_LARGER_BYTES = 64 * 1024
Place = tuple[int, int]


@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_every_poison_is_set_aside_once_and_neighbours_are_exact(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool, tmp_path: Path
) -> None:
    num_poison, num_large = (10_000, 25) if full_faults else (400, 1)
    rig, (bundle, _) = make_serving_rig(kafka_broker, event_log_dir=tmp_path / "log", event_log_flush_s=1)
    announce_bundle(rig, bundle)
    worker, trainer = start_serving(rig), rig.start_worker(module="stream.cli", arguments=["trainer"])
    sent, good = _produce(rig, num_poison, num_large)
    assert len(KINDS) >= 20
    assert {poison.kind for poison in sent} == set(KINDS)
    rig.wait_for_answers(len(good), 300)
    # Counted once they are committed, which is after they were consumed and after a subscriber has seen the answers.
    until(lambda: counted(worker, "plays_rejected_total") >= num_poison, 120, worker)
    num_rejected = counted(worker, "plays_rejected_total")
    num_reopened = counted(worker, "partitions_reopened_total")
    assert worker.terminate() == 0, worker.log()[-3000:]

    plays = {(record.partition, record.offset): record for record in read_all(rig.settings, rig.settings.plays_topic)}
    poisoned = {place: sent[int(name)] for place, record in plays.items() if (name := _header(record, NAME_HEADER))}
    assert len(poisoned) == num_poison
    dead_letters = _letters(rig.settings)
    assert dead_letters.keys() == poisoned.keys()
    for place, (dead_letter, *_) in dead_letters.items():
        _check(dead_letter, plays[place], poisoned[place])
    fault_row(
        "poison events",
        judge(rig.settings, rig.layout),
        poison=num_poison,
        kinds=len(KINDS),
        dead_letters=len(dead_letters),
        dead_letter_repeats=sum(len(repeats) - 1 for repeats in dead_letters.values()),
        partitions_reopened=int(num_reopened),
    )
    assert num_reopened == 0
    assert num_rejected == num_poison
    assert "Traceback" not in worker.log()

    until(lambda: counted(trainer, "trainer_logged_plays_total") >= len(good), 60, trainer)
    assert trainer.terminate() == 0, trainer.log()[-3000:]
    logged = EventLog(rig.settings.event_log_dir, rig.settings.plays_topic).plays()
    assert sorted(logged.column("event_id").to_pylist()) == sorted(play["event_id"] for play in good)


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_a_header_name_that_is_not_utf8_stops_no_partition(kafka_broker: Broker, make_rig: RigMaker) -> None:
    # Exactly once, so that a rebalance of a loaded machine shows no answer twice either.
    rig = make_rig(kafka_broker, delivery="exactly_once")
    worker = rig.start_worker()
    rig.produce(rig.plays(50))
    asyncio.run(send_with_odd_header(rig.settings, list(rig.plays(20))))
    rig.produce(rig.plays(50))
    rig.wait_for_answers(120, isolation="read_committed")
    assert worker.terminate() == 0, worker.log()[-3000:]
    assert set(rig.answers(isolation="read_committed").values()) == {1}
    assert sum(history.count for history in rig.state().values()) == 120


def _produce(rig: Rig, num_poison: int, num_large: int) -> tuple[list[Poison], list[dict[str, Any]]]:
    """Poison among as many good plays of the same members; what is poisonous has been made of those same plays."""
    rng = random.Random(7)
    plays = list(world_plays(rig, num_poison))
    sent = list(mixture(rng, num_poison, iter(plays), NUM_PARTITIONS, num_large))
    good = [play | _oddity(rng, play) for play in plays]
    for poison, play in zip(sent, good, strict=True):
        place = {} if poison.partition is None else {"partition": poison.partition}
        rig.send(poison.key, poison.value, headers=list(poison.headers), **place)
        rig.send(play["user_id"].encode(), json.dumps(play).encode())
    rig.flush()
    return sent, good


def _oddity(rng: random.Random, play: dict[str, Any]) -> dict[str, Any]:
    """What makes a play strange and leaves it valid; mostly nothing."""
    odd: list[dict[str, Any]] = [
        {"item_id": "\U0001f3ac \u00e9\u0000\n"},
        {"item_id": "i" * 256},
        {"ts": iso_time(play["ts"])},
        {"ts": str(play["ts"])},
        {"ts": iso_time(play["ts"]).lower(), "schema_version": None},
        {"context": {"device": None, "rating": None}},
        {"duration_s": 0.0},
        {"context": {str(number): "x" * 1024 for number in range(64)}},
        {"field_of_next_year": {"nested": [None, 1e308, "\u00e9"]}},
    ]
    if rng.random() < 0.002:
        return {"padding": "x" * 900_000}
    return rng.choice(odd) if rng.random() < 0.3 else {}


def _letters(settings: Settings) -> dict[Place, list[ReadBack]]:
    """Dead letters by the place that their id names, the first of each first."""
    dead_letters: dict[Place, list[ReadBack]] = defaultdict(list)
    for record in read_all(settings, settings.dead_letter_topic):
        topic, partition, offset, kind = _header(record, "intentrec-id").decode().rsplit("-", 3)
        assert (topic, kind) == (settings.plays_topic, "dead_letter")
        dead_letters[int(partition), int(offset)].append(record)
    return dead_letters


def _check(dead_letter: ReadBack, original: ReadBack, poison: Poison) -> None:
    """A dead letter says where and why, and holds the original's bytes."""
    named = Counter(name for name, _ in dead_letter.headers)
    assert all(number == 1 for name, number in named.items() if name.startswith("intentrec-"))
    headers = dict(dead_letter.headers)
    assert headers["intentrec-error"].decode() in poison.reasons, poison.kind
    assert headers["intentrec-detail"]
    where = [headers[f"intentrec-{name}"].decode() for name in ("topic", "partition", "offset")]
    assert where == [original.topic, str(original.partition), str(original.offset)]
    assert headers[NAME_HEADER] == _header(original, NAME_HEADER)
    value, key = poison.value or b"", poison.key
    assert original.value == poison.value
    if len(value) > KEPT_WHOLE_BYTES:
        assert dead_letter.value == value[:KEPT_OF_LARGER_BYTES]
        assert headers["intentrec-length"] == b"%d" % len(value)
        assert headers["intentrec-sha256"].decode() == hashlib.sha256(value).hexdigest()
    else:
        assert dead_letter.value == value
        assert ("intentrec-null-value" in headers) == (poison.value is None)
    if key is not None and len(key) > KEPT_OF_LARGER_BYTES:
        assert dead_letter.key == key[:KEPT_OF_LARGER_BYTES]
        assert headers["intentrec-key-sha256"].decode() == hashlib.sha256(key).hexdigest()
    else:
        assert dead_letter.key == key


def _header(record: ReadBack, name: str) -> bytes:
    """The last header of a name, as the worker's own come after a producer's; empty without one."""
    return dict(record.headers).get(name, b"")
