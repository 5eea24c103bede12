"""Plays that crash inference are isolated, retried and dead-lettered; all others are answered normally."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from intentrec_core.bundle.format import BundleRef
from intentrec_core.errors import EngineError
from stream.bundles.serving import load_serving
from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_recommendation
from stream.wire.messages import Recommendation
from stream.wire.records import OutputKind
from tests.rigs.fault_report import FaultRow
from tests.rigs.rig import NUM_PARTITIONS, Rig, Worker
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, counted, start_serving, until, world_plays
from tests.rigs.verdict import ReadBack, judge, read_all
from tests.worlds.bundle_world import SLOTS_BYTES, make_pipeline
from tests.worlds.naive_fold import anchor
from tests.worlds.tiny_world import TinyWorld

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

FAULTS = {"item-13": "raise", "item-17": "nan"}
MAX_TRIES = 2
#: Of scores, which are printed with five digits: other batches round otherwise.
TOLERANCE = 3e-5
Place = tuple[int, int]


def _start(rig: Rig, faults: dict[str, str], **environment: str) -> Worker:
    calls = str(rig.directory / "calls")
    return rig.start_worker(
        module="tests.faults.crashing_worker",
        arguments=["worker"],
        TEST_FAULTS=json.dumps(faults),
        TEST_CALLS=calls,
        **environment,
    )


def _plays(rig: Rig, num: int) -> list[dict[str, Any]]:
    """One in 97 crashes inference by one item, one in 131 by the other; no other member plays these."""
    plays = []
    for number, play in enumerate(world_plays(rig, num)):
        odd = [item for item, every in zip(FAULTS, (97, 131), strict=True) if number % every == every // 2]
        item = odd[0] if odd else "item-14" if play["item_id"] in FAULTS else play["item_id"]
        plays.append(play | {"item_id": item})
    return plays


def _given_up(plays: list[ReadBack], window: int) -> set[Place]:
    """The plays whose context, as of them, holds one that crashes: the anchored window, counted here."""
    items: dict[str, list[str]] = defaultdict(list)
    places = set()
    for record in plays:
        play = json.loads(record.value or b"")
        held = items[play["user_id"]]
        held.append(play["item_id"])
        if FAULTS.keys() & set(held[anchor(len(held), window) :]):
            places.add((record.partition, record.offset))
    return places


def test_a_play_that_crashes_inference_is_isolated_and_neighbours_are_exact(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, full_faults: bool, world: TinyWorld
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    announce_bundle(rig, bundle)
    # Sent before it starts: whole micro-batches, with crashing plays in most of them.
    rig.produce(_plays(rig, 5_000 if full_faults else 1_000))
    log = list(read_all(rig.settings, rig.settings.plays_topic))
    given_up = _given_up(log, world.window)
    worker = _start(rig, FAULTS)
    rig.wait_for_answers(len(log) - len(given_up), 300 if full_faults else 120)
    # Counted once they are committed, which is after a subscriber has seen them.
    until(lambda: counted(worker, "plays_rejected_total", reason="inference_failed") >= len(given_up), 60, worker)
    num_failed = counted(worker, "plays_rejected_total", reason="inference_failed")
    num_reopened = counted(worker, "partitions_reopened_total")
    assert worker.terminate() == 0, worker.log()[-3000:]

    dead_letters = {_place(record): record for record in read_all(rig.settings, rig.settings.dead_letter_topic)}
    assert dead_letters.keys() == given_up
    by_place = {(record.partition, record.offset): record for record in log}
    for place, dead_letter in dead_letters.items():
        headers = dict(dead_letter.headers)
        assert (dead_letter.key, dead_letter.value) == (by_place[place].key, by_place[place].value)
        assert headers["intentrec-error"] == b"inference_failed"
        assert f"in {MAX_TRIES} tries" in headers["intentrec-detail"].decode()
    calls = [int(line) for line in (rig.directory / "calls").read_text().split()]
    fault_row(
        "plays that crash inference",
        judge(rig.settings, rig.layout, given_up=given_up),
        crashing=sum(json.loads(record.value or b"")["item_id"] in FAULTS for record in log),
        dead_letters=len(dead_letters),
        crashed_calls=len(calls),
        largest_crashed_batch=max(calls),
        partitions_reopened=int(num_reopened),
    )
    assert num_reopened == 0
    assert num_failed == len(given_up)
    assert max(calls) > 1
    _check_neighbours(rig, bundle, log, given_up)


def _check_neighbours(rig: Rig, bundle: BundleRef, log: list[ReadBack], given_up: set[Place]) -> None:
    """What was answered is what a pipeline without the fault answers, one play at a time."""
    pipeline = make_pipeline(
        load_serving(bundle.path, device="cpu", pool_bytes=SLOTS_BYTES), num_partitions=NUM_PARTITIONS
    )
    for partition in range(1, NUM_PARTITIONS):
        pipeline.open_partition(partition, {})
    expected: dict[Place, Recommendation] = {}
    for record in log:
        (result,) = pipeline.process({record.partition: [record]})
        values = [output.value for output in result.outputs if output.kind is OutputKind.RECOMMENDATION]
        assert len(values) == 1
        expected[record.partition, record.offset] = decode_recommendation(values[0])
    answered = {_place(r): decode_recommendation(r.value or b"") for r in _recommendations(rig)}
    assert answered.keys() == expected.keys() - given_up
    for place, answer in answered.items():
        twin = expected[place]
        assert (answer.user_id, answer.session_id, answer.event_id) == (twin.user_id, twin.session_id, twin.event_id)
        scores, twin_scores = [item.score for item in answer.items], [item.score for item in twin.items]
        np.testing.assert_allclose(scores, twin_scores, atol=TOLERANCE)
        # Items may only change places where their scores are the same but for rounding.
        of_twin = {item.item_id: item.score for item in twin.items}
        assert all(abs(of_twin.get(item.item_id, twin_scores[-1]) - item.score) <= TOLERANCE for item in answer.items)


@pytest.mark.parametrize(
    ("how", "said"), [("lost", "the device cpu is lost: CUDA error"), ("raise", "even a known good one")]
)
def test_a_device_that_answers_nobody_ends_the_worker_and_the_next_one_answers_everything(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker, fault_row: FaultRow, how: str, said: str
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    announce_bundle(rig, bundle)
    rig.produce(world_plays(rig, 300))
    broken = _start(rig, {"*": how}, TEST_MAX_FAILURES="2")
    assert broken.wait(240) == EngineError.exit_code, broken.log()[-3000:]
    assert said in broken.log()
    assert not list(read_all(rig.settings, rig.settings.dead_letter_topic))
    assert not list(_recommendations(rig))
    healthy = start_serving(rig)
    rig.wait_for_answers(300, 120)
    assert healthy.terminate() == 0, healthy.log()[-3000:]
    fault_row(f"an inference device that answers no play ({how})", judge(rig.settings, rig.layout))


def _recommendations(rig: Rig) -> list[ReadBack]:
    return list(read_all(rig.settings, rig.settings.recommendations_topic))


def _place(output: ReadBack) -> Place:
    """The source of an output, from its id."""
    _, partition, offset, _ = dict(output.headers)["intentrec-id"].decode().rsplit("-", 3)
    return int(partition), int(offset)
