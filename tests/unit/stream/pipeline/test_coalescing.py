"""Coalescing: several plays of a member get one answer that names them, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from intentrec_core.engine.engine import Encoded, EncodeRequest
from stream.bundles.serving import Serving
from stream.pipeline.pipeline import Pipeline
from stream.wire.messages import Coalesced
from stream.wire.records import OutputKind, PartitionResult
from tests.worlds.bundle_world import PlayLog, Record, make_pipeline, make_serving
from tests.worlds.pipeline_results import answer_prefill, intents, lists, of_kind, state
from tests.worlds.tiny_world import TinyWorld

#: An item that a broken model cannot encode.
POISON = 29


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


@pytest.fixture
def pipeline(serving: Serving) -> Pipeline:
    return fresh(serving)


def fresh(serving: Serving) -> Pipeline:
    for user in serving.engine.cached_members():
        serving.engine.forget(user)
    return make_pipeline(serving)


def run(pipeline: Pipeline, records: Sequence[Record], *, coalesced: bool = True) -> list[PartitionResult]:
    results = pipeline.process({0: records}, coalesced=coalesced)
    for result in results:
        result.counts.count()
    return results


def count(pipeline: Pipeline, name: str, **labels: str) -> float:
    return pipeline.metrics.registry.get_sample_value(f"intentrec_{name}_total", labels) or 0.0


def mixed_log() -> PlayLog:
    """Plays of every kind by three members: in order, late, too late, repeated, malformed; anchors move."""
    log = PlayLog()
    for i in range(60):
        log.play(f"user-{i % 3}", i % 29, 300.0 * i - (2000 if i % 11 == 10 else 0))
        if i % 13 == 12:
            log.play(f"user-{i % 3}", i % 29, 300.0 * i, event_id=f"event-{len(log.records) - 1}")
        if i % 17 == 16:
            log.raw(b"no play")
        if i == 50:
            log.play("user-0", 3, -50_000)
    return log


def test_the_last_play_of_a_member_is_answered_and_names_the_others(pipeline: Pipeline) -> None:
    log = PlayLog()
    for i, user in enumerate(("ann", "ben", "ann", "cho", "ann", "ben")):
        log.play(user, i, 100.0 * i)
    (result,) = run(pipeline, log.records)
    runs = [(a.user_id, a.source.offset, a.coalesced) for a in lists(result)]
    alone = msgspec.UNSET
    assert runs == [("cho", 3, alone), ("ann", 4, Coalesced(3, 0)), ("ben", 5, Coalesced(2, 1))]
    assert [(a.user_id, a.source.offset, a.coalesced) for a in intents(result)] == runs
    assert result.outputs[2].headers[0] == ("intentrec-id", b"plays-0-4-recommendation")
    assert count(pipeline, "coalesced_plays") == 3
    assert result.outcomes.num_applied == 6


@pytest.mark.parametrize("size", [7, 30, 70])
def test_the_state_is_byte_for_byte_the_same(serving: Serving, size: int) -> None:
    log = mixed_log()
    plain, together = fresh(serving), fresh(serving)
    for low in range(0, len(log.records), size):
        expected = run(plain, log.records[low : low + size], coalesced=False)
        found = run(together, log.records[low : low + size])
        assert [r.changelog for r in found] == [r.changelog for r in expected]
        assert [r.next_offset for r in found] == [r.next_offset for r in expected]
        for kind in (OutputKind.LATE, OutputKind.DEAD_LETTER):
            assert [of_kind(r, kind) for r in found] == [of_kind(r, kind) for r in expected]
    for user in ("user-0", "user-1", "user-2"):
        assert state(plain, user) == state(together, user)
    assert count(together, "plays", outcome="late") == count(plain, "plays", outcome="late") == 1
    assert count(together, "coalesced_plays") > 20


@pytest.mark.parametrize("size", [7, 30, 70])
def test_an_answer_is_the_same_as_without_coalescing(serving: Serving, size: int) -> None:
    log = mixed_log()
    plain = {a.source.offset: a for r in run(fresh(serving), log.records, coalesced=False) for a in lists(r)}
    together, answered = fresh(serving), dict[int, int]()
    for low in range(0, len(log.records), size):
        for result in run(together, log.records[low : low + size]):
            for answer in lists(result):
                expected = plain[answer.source.offset]
                assert [i.item_id for i in answer.items] == [i.item_id for i in expected.items]
                assert answer.session_id == expected.session_id
                answered[answer.source.offset] = answer.coalesced.plays if answer.coalesced else 1
    assert sum(answered.values()) == len(plain), "every play is answered or named, once"


def test_the_answer_says_that_a_coalesced_play_opened_the_session(serving: Serving) -> None:
    log = PlayLog()
    for at_s in (0, 100, 10_000, 10_100):
        log.play("ann", 1, at_s)
    (result,) = run(fresh(serving), log.records)
    (answer,) = intents(result)
    assert answer.session_opened
    pipeline = fresh(serving)
    run(pipeline, log.records[:3])
    (result,) = run(pipeline, log.records[3:])
    assert not intents(result)[0].session_opened


def test_a_shift_is_relative_to_the_previous_answer(serving: Serving) -> None:
    log, shifts = PlayLog(), 0
    for i in range(56):  # 7 plays per member, so that no anchor moves: the previous play would get a shorter context
        log.play(f"user-{i // 7}", (11 * i) % 30, 900.0 * i, duration_s=(10.0, 300.0, 4e3)[i % 3])
    for user in range(8):
        pipeline, plays = fresh(serving), log.records[7 * user : 7 * user + 7]
        answers = [
            a
            for low, high in ((0, 1), (1, 3), (3, 6), (6, 7))
            for r in run(pipeline, plays[low:high])
            for a in intents(r)
        ]
        for before, now in pairwise(answers):
            assert before.primary is not None
            assert now.primary is not None
            assert now.shifted == ((before.primary.head, before.primary.label) != (now.primary.head, now.primary.label))
            shifts += now.shifted
    assert 0 < shifts < 24


def test_each_prediction_is_scored_by_the_next_play(serving: Serving) -> None:
    log = PlayLog()
    for i in range(6):
        log.play("ann", i, 100.0 * i)
    plain, together = fresh(serving), fresh(serving)
    for low, high in ((0, 1), (1, 2)):
        run(plain, log.records[low:high], coalesced=False)
    judged = [count(plain, name, bundle=serving.version) for name in ("judged_plays", "judged_hits")]
    run(together, log.records[:1])
    run(together, log.records[1:])
    assert [count(together, name, bundle=serving.version) for name in ("judged_plays", "judged_hits")] == judged
    assert judged[0] == 1


def test_a_play_that_crashes_inference_has_its_own_dead_letter_and_the_others_are_named(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, log = fresh(serving), PlayLog()
    poison = state_of_item(pipeline, POISON)
    encode = serving.engine.encode

    def breaks(requests: Sequence[EncodeRequest]) -> Encoded:
        for request in requests:
            if pipeline.layout.view(request.context)["item_hash"][-1] == poison:
                raise RuntimeError("this item")
        return encode(requests)

    monkeypatch.setattr(serving.engine, "encode", breaks)
    for i, item in enumerate((1, 2, POISON)):
        log.play("ann", item, 100.0 * i)
    (result,) = run(pipeline, log.records)
    assert [(a.source.offset, a.coalesced) for a in lists(result)] == [(1, Coalesced(2, 0))]
    assert [o.source_offset for o in of_kind(result, OutputKind.DEAD_LETTER)] == [2]


def state_of_item(pipeline: Pipeline, item: int) -> np.uint64:
    packed = pipeline.layout.pack(item_id=f"item-{item}", event_id="e", ts_ms=0, duration_s=None, attributes={})
    return pipeline.layout.view(packed.data)["item_hash"][0]


def test_plays_before_and_after_an_erasure_request_are_coalesced_separately(pipeline: Pipeline) -> None:
    log = PlayLog()
    for i in range(3):
        log.play("ann", i, 100.0 * i)
    log.forget("ann")
    for i in range(3, 5):
        log.play("ann", i, 100.0 * i)
    answers = [a for result in run(pipeline, log.records) for a in lists(result)]
    assert [(a.source.offset, a.coalesced) for a in answers] == [(2, Coalesced(3, 0)), (5, Coalesced(2, 4))]


def test_replayed_plays_are_coalesced_too(pipeline: Pipeline) -> None:
    log = PlayLog()
    for i in range(3):
        log.play("ann", i, 100.0 * i)
    run(pipeline, log.records, coalesced=False)
    (result,) = run(pipeline, [*log.records, log.play("ann", 7, 400)])
    assert [(a.source.offset, a.coalesced) for a in lists(result)] == [(3, Coalesced(4, 0))]


def test_a_queued_member_gets_one_coalesced_answer_too(serving: Serving) -> None:
    log, pipeline = PlayLog(), make_pipeline(serving, max_prefill_positions=4)
    for i in range(12):
        log.play(f"user-{i % 2}", i, 100.0 * i)
    run(pipeline, log.records, coalesced=False)
    while pipeline.num_queued_chunks:
        answer_prefill(pipeline)
    # Their keys and values are gone: two new plays of each cost a whole context, and are queued.
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    results = run(pipeline, [log.play(f"user-{i % 2}", i, 2_000.0 + i) for i in range(4)])
    assert pipeline.num_queued_chunks == 2
    assert not [answer for result in results for answer in lists(result)]
    while pipeline.num_queued_chunks:
        results += answer_prefill(pipeline)
    found = sorted((answer for result in results for answer in lists(result)), key=lambda answer: answer.user_id)
    assert [(a.user_id, a.source.offset, a.coalesced) for a in found] == [
        ("user-0", 14, Coalesced(2, 12)),
        ("user-1", 15, Coalesced(2, 13)),
    ]
