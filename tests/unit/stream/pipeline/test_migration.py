"""Members move from one bundle to another while plays come: each is served by one of them at a time, and warm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from stream.bundles.serving import Serving
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import SLOTS_BYTES, PlayLog
from tests.worlds.migration_world import migrate_all, played_in
from tests.worlds.pipeline_results import (
    answer_prefill,
    compare_with_recomputation,
    expect_full_recomputation,
    intents,
    lists,
    run,
    state,
)


@pytest.mark.usefixtures("small_chunks")
def test_members_are_taken_over_one_after_another_hottest_first_and_warm(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 5)
    pipeline.start_migration(second)
    for _ in range(4):  # of 4 plays each: three members of 6 plays, but for 2
        assert pipeline.step_migration()
    misses = first.engine.stats.misses + second.engine.stats.misses
    result = run(pipeline, [log.play(f"user-{i}", 1, 10_000.0 + i) for i in range(5)])
    served_by = {first.version: ["user-0", "user-1", "user-2"], second.version: ["user-3", "user-4"]}
    for version, users in served_by.items():
        assert sorted(a.user_id for a in lists(result) if a.bundle == version) == users
        assert sorted(a.user_id for a in intents(result) if a.bundle == version) == users
    assert first.engine.stats.misses + second.engine.stats.misses == misses
    by_version = {first.version: first, second.version: second}
    for answer in intents(result):
        events = bytes(state(pipeline, answer.user_id).events)
        compare_with_recomputation(by_version[answer.bundle], events, answer)


def test_after_the_swap_the_new_bundle_serves_everybody_and_whoever_was_taken_over_is_warm(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 8)
    first.engine.forget(MemberKey(0, "user-3"))  # not cached: there is nothing to take over
    pipeline.start_migration(second)
    migrate_all(pipeline)
    assert pipeline.serving is first
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_migrated_members") == 7
    assert pipeline.swap(second) == 7
    assert sample("intentrec_migrated_members") == 0
    assert pipeline.serving is second
    misses = second.engine.stats.misses
    answers = intents(run(pipeline, [log.play(f"user-{i}", 1, 10_000.0 + i) for i in range(8)]))
    assert second.engine.stats.misses == misses + 1
    assert {answer.bundle for answer in answers} == {second.version}
    for answer in answers:
        expect_full_recomputation(pipeline, answer)


@pytest.mark.usefixtures("small_chunks")
def test_what_a_member_plays_while_they_are_encoded_is_encoded_too(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 1)
    pipeline.start_migration(second)
    assert pipeline.step_migration()  # 4 plays of 6
    run(pipeline, [log.play("user-0", 7, 9_000)])
    positions = second.engine.stats.positions
    assert not pipeline.step_migration()
    assert second.engine.stats.positions == positions + 3
    (answer,) = intents(run(pipeline, [log.play("user-0", 8, 9_100)]))
    assert answer.bundle == second.version
    compare_with_recomputation(second, bytes(state(pipeline, "user-0").events), answer)


@pytest.mark.usefixtures("small_chunks")
def test_a_late_play_while_a_member_is_encoded_has_them_encoded_again(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 1)
    pipeline.start_migration(second)
    assert pipeline.step_migration()
    run(pipeline, [log.play("user-0", 9, 50)])
    migrate_all(pipeline)
    (answer,) = intents(run(pipeline, [log.play("user-0", 8, 9_100)]))
    assert answer.bundle == second.version
    compare_with_recomputation(second, bytes(state(pipeline, "user-0").events), answer)


def test_what_a_member_waits_for_is_answered_right_by_the_bundle_they_moved_to(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 3, max_prefill_positions=1)
    contexts = []
    for late in (log.play("user-0", 9, 150), log.play("user-0", 8, 250)):
        pipeline.process({0: [late]})
        contexts.append(bytes(state(pipeline, "user-0").events))
    assert pipeline.num_queued == 2
    pipeline.start_migration(second)
    migrate_all(pipeline)
    assert second.engine.caches(MemberKey(0, "user-0")), (
        "with the second late play, while the first one is still to be answered"
    )
    for context in contexts:
        (part,) = answer_prefill(pipeline)
        (answer,) = intents(part)
        assert answer.bundle == second.version
        compare_with_recomputation(second, context, answer)


def test_dead_letters_come_once_and_in_place_while_two_bundles_serve(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 2)
    first.engine.forget(MemberKey(0, "user-0"))
    pipeline.start_migration(second)
    assert not pipeline.step_migration()  # user-1 alone
    low = len(log.records)
    log.play("user-1", 1, 10_000)
    log.raw(b"{", b"user-1")
    log.play("user-0", 1, 10_001)
    log.play("user-1", 2, 10_002)
    result = run(pipeline, log.records[low:])
    kinds = [o.kind for o in result.outputs]
    assert kinds.count(OutputKind.DEAD_LETTER) == 1
    assert kinds.count(OutputKind.RECOMMENDATION) == kinds.count(OutputKind.INTENT) == 3
    assert (result.num_records, result.outcomes.num_applied, result.outcomes.num_rejected) == (4, 3, 1)
    assert [a.event_id for a in lists(result) if a.user_id == "user-1"] == [f"event-{low}", f"event-{low + 3}"]
    assert {a.bundle for a in lists(result) if a.user_id == "user-1"} == {second.version}
    only_rejected = run(pipeline, [log.raw(b"{", b"user-1")])
    assert [o.kind for o in only_rejected.outputs] == [OutputKind.DEAD_LETTER]
    only_moved = run(pipeline, [log.play("user-1", 3, 10_003)])
    assert len(lists(only_moved)) == len(intents(only_moved)) == 1


def test_the_last_prediction_before_a_member_moved_is_judged_by_the_play_after(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 1)
    pipeline.start_migration(second)
    pipeline.step_migration()
    run(pipeline, [log.play("user-0", 1, 9_000), log.play("user-0", 2, 9_100)])
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_judged_plays_total", {"bundle": first.version}) == 6
    assert sample("intentrec_judged_plays_total", {"bundle": second.version}) == 1


def test_what_a_takeover_encodes_counts_as_nobodys_play(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 4)
    sample = pipeline.metrics.registry.get_sample_value
    before = sample("intentrec_engine_positions_total")
    pipeline.start_migration(second)
    migrate_all(pipeline)
    run(pipeline, [log.play("user-0", 1, 9_000)])
    assert sample("intentrec_engine_positions_total") == before + 1
    assert sample("intentrec_engine_lookups_total", {"result": "hit"}) == 1


@pytest.mark.usefixtures("small_chunks")
def test_who_plays_faster_than_they_are_encoded_does_not_hold_up_the_others(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 5)
    window = pipeline.layout.window
    pipeline.start_migration(second)
    for i in range(60):
        pipeline.step_migration()
        plays = [log.play("user-4", (7 * i + k) % 30, 10_000.0 + 100 * i + k) for k in range(2 * window)]
        run(pipeline, plays)
    others = run(pipeline, [log.play(f"user-{i}", 1, 90_000.0 + i) for i in range(4)])
    assert {answer.bundle for answer in lists(others)} == {second.version}


def test_a_rollback_encodes_nobody_anew_whom_the_bundle_kept_has_cached(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 5)
    for serving in (second, first):
        pipeline.start_migration(serving)
        positions = serving.engine.stats.positions
        migrate_all(pipeline)
        encoded = serving.engine.stats.positions - positions
        assert pipeline.swap(serving) == 5
    assert encoded <= 2 * 5, "the newest play, and the one before it"
    for answer in intents(run(pipeline, [log.play(f"user-{i}", 1, 90_000.0 + i) for i in range(5)])):
        expect_full_recomputation(pipeline, answer)


def test_who_comes_during_a_takeover_is_moved_as_well(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 2)
    pipeline.start_migration(second)
    run(pipeline, [log.play("newcomer", 3, 9_000)])
    migrate_all(pipeline)
    assert pipeline.swap(second) == 3


def test_no_more_members_are_taken_over_than_the_coming_engine_can_cache(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    pipeline = played_in(first, PlayLog(), 9)
    engine = second.engine
    small = IncrementalEngine(
        engine.model, second.features, pool_bytes=4 * SLOTS_BYTES // engine.num_slots, version=engine.version
    )
    second = replace(second, engine=small)
    pipeline.start_migration(second)
    migrate_all(pipeline)
    assert pipeline.swap(second) == small.num_slots < 9
    assert small.num_evictions == 0
