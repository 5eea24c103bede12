"""A play that crashes inference: the real model, with an encoder that raises where a poisonous item is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from intentrec_core.engine.engine import Encoded, EncodeRequest
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import DeviceLost, EngineError
from stream.bundles.serving import Serving
from stream.pipeline.pipeline import Pipeline
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.faulty_encoder import device_lost, faulty
from tests.worlds.pipeline_results import lists, of_kind, run, state
from tests.worlds.tiny_world import TinyWorld

POISON = 13


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


@contextmanager
def poison(serving: Serving, item: int = POISON) -> Iterator[list[int]]:
    """Encoding a play of ``item`` raises; yields a list with an entry a crash."""
    row, crashes = serving.vocabulary.row(f"item-{item}"), list[int]()

    def crash(rows: NDArray[np.int64], num_contexts: int) -> bool:
        if row not in rows:
            return False
        crashes.append(num_contexts)
        return True

    with faulty(serving, raises=crash):
        yield crashes


@contextmanager
def spoiling(serving: Serving, item: int = POISON) -> Iterator[None]:
    """What is encoded of contexts with ``item`` is not finite."""
    with faulty(serving, spoils=[serving.vocabulary.row(f"item-{item}")]):
        yield


def plays_of_many(poisoned: str | None, item: int = POISON) -> PlayLog:
    log = PlayLog()
    for i in range(32):
        user = f"user-{i % 16}"
        log.play(user, item if user == poisoned and i < 16 else i % 9, 100.0 * i)
    return log


def test_other_plays_are_answered_as_if_the_crashing_play_were_not_there(serving: Serving) -> None:
    log = plays_of_many("user-5")
    with poison(serving):
        result = run(make_pipeline(serving), log.records)
    clean = run(make_pipeline(serving), plays_of_many(None).records)
    dead_letters = of_kind(result, OutputKind.DEAD_LETTER)
    assert [dead_letter.source_offset for dead_letter in dead_letters] == [
        5,
        21,
    ]  # the play, and one whose context has it
    assert all(dict(dead_letter.headers)["intentrec-error"] == b"inference_failed" for dead_letter in dead_letters)
    assert dead_letters[0].value == log.records[5].value
    expected = {a.event_id: a for a in lists(clean) if a.user_id != "user-5"}
    answered = {a.event_id: a for a in lists(result)}
    assert answered.keys() == expected.keys()
    for event_id, answer in answered.items():
        assert [i.item_id for i in answer.items] == [i.item_id for i in expected[event_id].items]


def test_a_crashing_play_stays_in_the_state_and_leaves_with_the_context(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    with poison(serving):
        for i in range(14):
            log.play("ann", POISON if i == 2 else i % 9, 100.0 * i)
        results = [run(pipeline, [record]) for record in log.records]
    assert state(pipeline, "ann").count == 14
    answered = [bool(lists(result)) for result in results]
    assert answered == [i < 2 or i >= 8 for i in range(14)]  # window 4: the anchor moves past it at the 9th play


def test_of_a_run_only_the_plays_from_the_crashing_one_on_are_given_up(serving: Serving) -> None:
    log = PlayLog()
    for i in range(6):
        log.play("ann", POISON if i == 3 else i, 100.0 * i)
    with poison(serving):
        result = run(make_pipeline(serving), log.records)
    assert [o.source_offset for o in of_kind(result, OutputKind.RECOMMENDATION)] == [0, 1, 2]
    assert [o.source_offset for o in of_kind(result, OutputKind.DEAD_LETTER)] == [3, 4, 5]


def test_a_suspected_member_is_encoded_apart_from_then_on(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), plays_of_many("user-5")
    with poison(serving) as crashes:
        run(pipeline, log.records[:16])
        assert max(crashes) > 1
        crashes.clear()
        run(pipeline, log.records[16:])
        assert crashes
        assert set(crashes) == {1}


def test_a_play_is_tried_as_often_as_configured(serving: Serving) -> None:
    log = PlayLog()
    log.play("ann", POISON, 0)
    log.play("ben", 1, 0)
    for tries in (1, 3):
        with poison(serving) as crashes:
            run(make_pipeline(serving, max_tries=tries), log.records)
        assert crashes.count(1) == tries


def test_an_output_that_is_not_finite_counts_as_a_crash(serving: Serving) -> None:
    with spoiling(serving):
        result = run(make_pipeline(serving), plays_of_many("user-5").records)
    assert [o.source_offset for o in of_kind(result, OutputKind.DEAD_LETTER)] == [5, 21]
    assert len(lists(result)) == 30


def test_a_member_with_an_output_that_is_not_finite_is_not_cached(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    for i in range(14):
        log.play("ann", POISON if i == 2 else i % 9, 100.0 * i)
    with spoiling(serving):
        answered = [bool(lists(run(pipeline, [record]))) for record in log.records]
    assert answered == [i < 2 or i >= 8 for i in range(14)]


def test_when_no_context_can_be_encoded_the_worker_ends_instead_of_giving_up_plays(serving: Serving) -> None:
    pipeline: Pipeline = make_pipeline(serving)
    with faulty(serving, raises=lambda *_: True), pytest.raises(EngineError, match="index out of range"):
        pipeline.process({0: plays_of_many(None).records})


def test_a_lost_device_is_not_the_fault_of_a_play_and_is_tried_once(serving: Serving) -> None:
    pipeline, calls = make_pipeline(serving), list[int]()

    def lost(rows: NDArray[np.int64], num_contexts: int) -> bool:
        calls.append(num_contexts)
        return True

    with faulty(serving, raises=lost, error=device_lost), pytest.raises(DeviceLost, match="CUDA error"):
        pipeline.process({0: plays_of_many(None).records})
    assert calls == [16]


def test_outputs_of_a_partition_are_in_source_order_whatever_their_kind(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    records = [log.play("order-ann", 1, 0), log.raw(b"no play", b"bob"), log.play("order-ann", 2, 100)]
    records += [log.play("order-bob", POISON, 100), log.raw(b"no play", b"bob"), log.play("order-ann", 3, 200)]
    with poison(serving):
        result = run(pipeline, records)
    assert [output.source_offset for output in result.outputs] == [0, 0, 1, 2, 2, 3, 4, 5, 5]
    assert [o.source_offset for o in of_kind(result, OutputKind.DEAD_LETTER)] == [1, 3, 4]


def test_members_forgotten_before_a_micro_batch_that_raises_are_forgotten_with_the_next_one(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, log, encode = (
        make_pipeline(serving, num_partitions=2, plays_partitioner="any"),
        PlayLog(),
        serving.engine.encode,
    )
    closed = PlayLog(partition=1)
    pipeline.open_partition(1, {})
    pipeline.process({1: [closed.play("gone", item, 100.0 * item) for item in range(5)]})
    pipeline.close_partition(1)
    calls: list[int] = []

    def breaks(requests: Sequence[EncodeRequest]) -> Encoded:
        calls.append(len(requests))
        if len(calls) > 1:
            raise RuntimeError("out of memory")
        return encode(requests)

    monkeypatch.setattr(serving.engine, "encode", breaks)
    with pytest.raises(EngineError):
        pipeline.encode({0: [log.play("ben", 1, 0), log.forget("ben"), log.play("cho", 2, 100)]})
    monkeypatch.undo()
    pipeline.open_partition(0, {})
    pipeline.open_partition(1, {})
    (result,) = pipeline.process({1: [closed.play("gone", 20, 1000)]})
    alone = make_pipeline(serving, num_partitions=2, plays_partitioner="any")
    alone.open_partition(1, {})
    (expected,) = alone.process({1: [closed.records[-1]]})
    assert [o.value for o in result.outputs] == [o.value for o in expected.outputs], "as if it had never played before"


def test_a_member_erased_in_a_micro_batch_that_raises_is_forgotten(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition moves away with that failure. When it comes back, the member plays for the first time."""
    pipeline, log, member = make_pipeline(serving), PlayLog(), MemberKey(0, "ann")
    run(pipeline, [log.play("ann", item, 100.0 * item) for item in range(5)])
    assert serving.engine.caches(member)

    def breaks(requests: Sequence[EncodeRequest]) -> Encoded:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(serving.engine, "encode", breaks)
        with pytest.raises(EngineError):
            pipeline.encode({0: [log.play("ben", 1, 600), log.forget("ann")]})
    assert not serving.engine.caches(member)
    pipeline.open_partition(0, {})
    result = run(pipeline, [log.play("ann", 20, 1000)])
    expected = run(make_pipeline(serving), [log.records[-1]])
    assert [o.value for o in result.outputs] == [o.value for o in expected.outputs]
