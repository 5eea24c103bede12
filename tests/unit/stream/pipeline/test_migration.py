"""Members migrate from one bundle to another while plays come in: one bundle at a time serves each member, with a warm cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from stream.bundles.serving import Serving
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import SLOTS_BYTES, PlayLog, make_pipeline, make_serving
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
from tests.worlds.tiny_world import TinyWorld


@pytest.mark.usefixtures("small_chunks")
def test_members_migrate_one_after_another_most_recently_active_first_and_warm(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 5)
    pipeline.start_migration(second)
    for _ in range(4):  # chunks of 4 plays: two members of 6 plays, and 4 plays of a third
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


def test_after_the_swap_the_new_bundle_serves_every_member_and_migrated_members_are_warm(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 8)
    first.engine.forget(MemberKey(0, "user-3"))  # not cached, so it does not migrate
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
def test_plays_of_a_member_during_its_migration_are_encoded_too(servings: tuple[Serving, Serving]) -> None:
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
def test_after_a_late_play_during_its_migration_a_member_is_encoded_again(servings: tuple[Serving, Serving]) -> None:
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


def test_queued_answers_of_a_migrated_member_are_right_and_come_from_the_new_bundle(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 3, max_prefill_positions=1)
    contexts = []
    for late in (log.play("user-0", 9, 150), log.play("user-0", 8, 250)):
        pipeline.process({0: [late]})
        contexts.append(bytes(state(pipeline, "user-0").events))
    assert pipeline.num_queued_chunks == 2
    pipeline.start_migration(second)
    migrate_all(pipeline)
    assert second.engine.caches(MemberKey(0, "user-0")), (
        "with the second late play, although the first one is not answered yet"
    )
    for context in contexts:
        (result,) = answer_prefill(pipeline)
        (answer,) = intents(result)
        assert answer.bundle == second.version
        compare_with_recomputation(second, context, answer)


def test_dead_letters_come_once_and_in_order_while_two_bundles_serve(servings: tuple[Serving, Serving]) -> None:
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
    only_migrated = run(pipeline, [log.play("user-1", 3, 10_003)])
    assert len(lists(only_migrated)) == len(intents(only_migrated)) == 1


def test_the_last_prediction_before_a_migration_is_scored_by_the_next_play(
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


def test_encoding_for_a_migration_does_not_count_as_encoding_plays(servings: tuple[Serving, Serving]) -> None:
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
def test_a_member_who_plays_faster_than_it_is_encoded_does_not_delay_the_others(
    servings: tuple[Serving, Serving],
) -> None:
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


def test_a_rollback_encodes_no_member_again_whom_the_previous_bundle_has_cached(
    servings: tuple[Serving, Serving],
) -> None:
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


def test_a_member_who_becomes_active_during_a_migration_migrates_as_well(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 2)
    pipeline.start_migration(second)
    run(pipeline, [log.play("newcomer", 3, 9_000)])
    migrate_all(pipeline)
    assert pipeline.swap(second) == 3


def test_no_more_members_migrate_than_the_coming_engine_can_cache(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    pipeline = played_in(first, PlayLog(), 9)
    engine = second.engine
    small = IncrementalEngine(
        engine.weights, second.features, pool_bytes=4 * SLOTS_BYTES // engine.num_contexts, version=engine.version
    )
    second = replace(second, engine=small)
    pipeline.start_migration(second)
    migrate_all(pipeline)
    assert pipeline.swap(second) == small.num_slots < 9
    assert small.num_evictions == 0


def test_members_with_contexts_of_all_lengths_migrate_as_far_as_they_fit(tmp_path: Path) -> None:
    """A slot has seven units here, so two contexts of three fit into one, with a unit to spare."""
    world = TinyWorld(window=100)
    first, second = (make_serving(tmp_path / str(seed), world, world.model(seed)) for seed in (1, 2))
    log = PlayLog()
    pipeline = make_pipeline(first)
    for user in range(12):
        for nth in range(70 if user < 9 else 20):
            log.play(f"user-{user}", nth % 30, 100.0 * (70 * user + nth))
    run(pipeline, log.records)
    engine = second.engine
    small = IncrementalEngine(
        engine.weights, second.features, pool_bytes=4 * SLOTS_BYTES // engine.num_contexts, version=engine.version
    )
    assert (small.num_slots, small.num_units) == (4, 28)
    second = replace(second, engine=small)
    pipeline.start_migration(second)
    migrate_all(pipeline)
    assert pipeline.swap(second) == 3 + 3 * 2, "three short ones in one slot, and two others in each of three"
    assert (small.num_evictions, small.num_contexts_in_use) == (0, 4)


def test_a_member_erased_after_it_moved_is_forgotten_by_the_coming_bundle(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 2, num_plays=3, num_recommendations=30)
    pipeline.start_migration(second)
    migrate_all(pipeline)
    run(pipeline, [log.play("user-0", 20, 9_000)])
    pipeline.process({0: [log.forget("user-0"), log.play("user-0", 7, 9_100)]})
    pipeline.swap(second)
    (answer,) = lists(run(pipeline, [log.play("user-0", 8, 9_200)]))
    assert answer.bundle == second.version
    (of_another,) = lists(run(pipeline, [log.play("someone else", 8, 9_300)]))
    listed, listed_for_another = ({item.item_id for item in message.items} for message in (answer, of_another))
    assert "item-20" in listed_for_another
    assert listed == listed_for_another - {"item-7"}, (
        "hidden is what was played since the erasure, and nothing from before"
    )
