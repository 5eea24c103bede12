"""Members who need a full prefill: answered after the others, chunk by chunk, and with the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.engine.engine import Encoded, EncodeRequest
from intentrec_core.engine.member_key import MemberKey
from stream.bundles.serving import Serving
from stream.pipeline.pipeline import Pipeline
from stream.wire.records import OutputKind, OutputRecord, PartitionResult
from tests.worlds import bundle_world
from tests.worlds.bundle_world import PlayLog, Record, make_pipeline, make_serving
from tests.worlds.pipeline_results import answer_prefill, intents, lists, of_kind
from tests.worlds.tiny_world import TinyWorld

#: Two members' contexts of four plays each.
BOUND = 8


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def fresh(serving: Serving, bound: int = BOUND) -> Pipeline:
    for user in serving.engine.cached_members():
        serving.engine.forget(user)
    return make_pipeline(serving, max_prefill_positions=bound)


def warmed_up(serving: Serving, log: PlayLog, num_users: int, bound: int = BOUND) -> Pipeline:
    """Every member has three plays, and only user-0 is cached."""
    pipeline = fresh(serving, bound)
    for i in range(3 * num_users):
        log.play(f"user-{i % num_users}", i % 30, 100.0 * i)
    run(pipeline, log.records)
    for i in range(1, num_users):
        serving.engine.forget(MemberKey(0, f"user-{i}"))
    return pipeline


def run(pipeline: Pipeline, records: Sequence[Record]) -> list[PartitionResult]:
    """The results at once, then those of each chunk."""
    results = pipeline.process({0: records})
    while pipeline.num_queued_chunks:
        results += answer_prefill(pipeline)
    for result in results:
        result.counts.count()
    return results


def outputs(results: Sequence[PartitionResult]) -> list[OutputRecord]:
    return sorted((o for result in results for o in result.outputs), key=lambda o: (o.source_offset, o.kind))


def test_cached_members_are_answered_first_and_the_others_within_the_bound(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    records = [log.play(f"user-{i}", i, 2000.0 + i) for i in (1, 2, 3, 4, 5, 0)]
    positions = serving.engine.stats.positions
    first, *chunks = run(pipeline, records)
    assert [a.user_id for a in lists(first)] == ["user-0"]
    assert [[a.user_id for a in lists(chunk)] for chunk in chunks] == [
        ["user-1", "user-2"],
        ["user-3", "user-4"],
        ["user-5"],
    ]
    assert (first.num_records, first.outcomes.num_applied, first.next_offset) == (6, 6, len(log.records))
    assert {chunk.num_records for chunk in chunks} == {0}
    assert serving.engine.stats.positions - positions == 1 + 5 * 4


def test_answers_are_those_of_a_pipeline_without_a_bound(serving: Serving) -> None:
    logs = PlayLog(), PlayLog()
    plain = warmed_up(serving, logs[0], 6, bound=0)
    # Anchors move, and some plays come late.
    more = [(f"user-{i % 7}", i % 30, 2000.0 + 100 * i - (1500 if i % 9 == 8 else 0)) for i in range(40)]
    expected = outputs(run(plain, [logs[0].play(*play) for play in more]))
    bounded = warmed_up(serving, logs[1], 6)
    found = outputs(run(bounded, [logs[1].play(*play) for play in more]))
    assert [(o.kind, o.headers) for o in found] == [(o.kind, o.headers) for o in expected]
    as_results = [PartitionResult(0, 0, 0, found), PartitionResult(0, 0, 0, expected)]
    ours, theirs = (lists(result) for result in as_results)
    assert [[i.item_id for i in a.items] for a in ours] == [[i.item_id for i in a.items] for a in theirs]
    shifts, expected_shifts = ([a.shifted for a in intents(result)] for result in as_results)
    assert shifts == expected_shifts
    assert all(bounded.history(0, f"user-{i}") == plain.history(0, f"user-{i}") for i in range(7))


def test_a_few_positions_are_encoded_at_once(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 3)
    (result,) = run(pipeline, [log.play(f"user-{i}", i, 2000.0 + i) for i in (1, 2, 0)])
    assert len(lists(result)) == 3


def test_newer_plays_of_queued_members_cost_only_themselves(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    pipeline.process({0: [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)]})
    assert pipeline.num_queued_chunks == 3
    pipeline.process({0: [log.play(f"user-{i}", i, 3000.0 + i) for i in range(1, 6)]})
    assert pipeline.num_queued_chunks == 4, "five plays are one chunk, however long their contexts are"
    run(pipeline, [])
    positions = serving.engine.stats.positions
    (at_once,) = run(pipeline, [log.play(f"user-{i}", i, 4000.0 + i) for i in range(6)])
    assert len(lists(at_once)) == 6
    assert serving.engine.stats.positions - positions == 6


def test_the_bound_holds_with_more_queued_members_than_slots(
    world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_world, "SLOTS_BYTES", 4 * context_bytes(world.model(1)))
    small, log = make_serving(tmp_path, world, world.model(1)), PlayLog()
    pipeline = warmed_up(small, log, 9)
    for at_s in (2000.0, 3000.0):
        pipeline.process({0: [log.play(f"user-{i}", i, at_s + i) for i in range(1, 9)]})
    while pipeline.num_queued_chunks:
        positions = small.engine.stats.positions
        answer_prefill(pipeline)
        assert small.engine.stats.positions - positions <= BOUND + 2  # two members have one more play by then


def test_no_member_of_a_closed_partition_stays_queued(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    pipeline.process({0: [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)]})
    pipeline.close_partition(0)
    pipeline.open_partition(0, {})
    num_chunks = pipeline.num_queued_chunks
    (result,) = pipeline.process({0: [log.play("user-1", 1, 3000.0)]})
    assert len(lists(result)) == 1
    assert pipeline.num_queued_chunks == num_chunks


def test_members_whose_anchors_move_at_the_same_time_are_answered_after_the_others(serving: Serving) -> None:
    log = PlayLog()
    pipeline = fresh(serving)
    for i in range(8 * 5):  # twice the window: the next play moves the anchor
        log.play(f"user-{i % 5}", i % 30, 100.0 * i)
    run(pipeline, log.records)
    run(pipeline, [log.play("user-5", 1, 4500.0)])
    first, *chunks = run(pipeline, [log.play(f"user-{i}", i, 5000.0 + i) for i in range(6)])
    assert [a.user_id for a in lists(first)] == ["user-5"]
    assert sorted(a.user_id for chunk in chunks for a in lists(chunk)) == [f"user-{i}" for i in range(5)]
    assert len(chunks) == 5, "contexts of five plays within a bound of eight"


def test_newer_plays_of_a_queued_member_do_not_overtake_its_queued_plays(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    pipeline.process({0: [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)]})
    (later,) = pipeline.process({0: [log.play(f"user-{i}", 9, 3000.0 + i) for i in (5, 0)]})
    assert [a.user_id for a in lists(later)] == ["user-0"]
    chunks = [answer_prefill(pipeline) for _ in range(3)]
    assert serving.engine.caches(MemberKey(0, "user-5"))
    (latest,) = pipeline.process({0: [log.play("user-5", 10, 4000.0)]})
    assert not latest.outputs, "one play of the member is answered, another one is still queued"
    while pipeline.num_queued_chunks:
        chunks.append(answer_prefill(pipeline))
    assert [a.source.offset for chunk in chunks for r in chunk for a in lists(r) if a.user_id == "user-5"] == [
        22,
        23,
        25,
    ]


def test_nothing_is_kept_of_a_member_who_was_forgotten_while_queued(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    pipeline.process({0: [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)]})
    pipeline.process({0: [log.forget("user-5")]})
    answered = []
    while pipeline.num_queued_chunks:
        answered += [a.user_id for chunk in answer_prefill(pipeline) for a in lists(chunk)]
    assert "user-5" in answered, "the play came before the erasure request"
    assert not serving.engine.caches(MemberKey(0, "user-5"))
    assert serving.engine.caches(MemberKey(0, "user-4"))
    assert MemberKey(0, "user-5") not in pipeline._bundles.responders[0]._watched._held


def test_no_play_of_a_closed_partition_is_answered(serving: Serving) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    pipeline.process({0: [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)]})
    num_queued = pipeline.num_queued_chunks
    pipeline.close_partition(0)
    assert [answer_prefill(pipeline) for _ in range(num_queued)] == [[]] * num_queued
    assert not serving.engine.num_cached


def test_plays_queued_during_a_swap_are_answered_by_the_new_bundle(
    serving: Serving, world: TinyWorld, tmp_path: Path
) -> None:
    log, other = PlayLog(), make_serving(tmp_path, world, world.model(2))
    pipeline = warmed_up(serving, log, 6)
    pipeline.process({0: [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)]})
    pipeline.swap(other)
    (chunk,) = answer_prefill(pipeline)
    assert {a.bundle for a in lists(chunk)} == {a.bundle for a in intents(chunk)} == {other.version}


def test_the_previous_bundle_has_not_cached_plays_answered_after_the_swap(
    serving: Serving, world: TinyWorld, tmp_path: Path
) -> None:
    log, other = PlayLog(), make_serving(tmp_path, world, world.model(2))
    pipeline = fresh(serving)
    members = [MemberKey(0, f"user-{i}") for i in range(5)]
    for i in range(8 * 5):  # twice the window: the next play moves the anchor
        log.play(f"user-{i % 5}", i % 30, 100.0 * i)
    run(pipeline, log.records)
    pipeline.start_migration(other)
    pipeline.process({0: [log.play(f"user-{i}", i, 5000.0 + i) for i in range(5)]})
    assert pipeline.num_queued_chunks
    assert all(serving.engine.caches(member) for member in members)
    pipeline.swap(other)
    while pipeline.num_queued_chunks:
        answer_prefill(pipeline)
    pipeline.swap(serving)
    assert not any(serving.engine.caches(member) for member in members)


def test_a_queued_member_who_cannot_be_encoded_gets_a_dead_letter_that_is_counted(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PlayLog()
    pipeline = warmed_up(serving, log, 6)
    encode = serving.engine.encode

    def breaks(requests: Sequence[EncodeRequest]) -> Encoded:
        if any(request.member == MemberKey(0, "user-5") for request in requests):
            raise RuntimeError("this member")
        return encode(requests)

    monkeypatch.setattr(serving.engine, "encode", breaks)
    results = run(pipeline, [log.play(f"user-{i}", i, 2000.0 + i) for i in range(1, 6)])
    assert [o.source_offset for r in results for o in of_kind(r, OutputKind.DEAD_LETTER)] == [22]
    assert (
        pipeline.metrics.registry.get_sample_value("intentrec_plays_rejected_total", {"reason": "inference_failed"})
        == 1
    )
