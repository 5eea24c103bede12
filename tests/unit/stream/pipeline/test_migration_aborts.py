"""Migrations that are refused, aborted or ended early: migrated members are served as if they had never left the old bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.errors import BundleError, BundleFault, DeviceLost
from stream.bundles.serving import Serving
from tests.worlds.bundle_world import SLOTS_BYTES, PlayLog, make_pipeline, make_serving
from tests.worlds.faulty_encoder import device_lost, faulty
from tests.worlds.migration_world import migrate_all, played_in
from tests.worlds.pipeline_results import answer_prefill, expect_full_recomputation, intents, lists, run
from tests.worlds.tiny_world import TinyWorld


def broken(serving: Serving) -> Serving:
    """Its weights are finite where it is probed, and then are not."""
    weights = serving.engine.weights
    weights.arrays["item_encoder.leave_norm.weight"].fill(np.nan)
    engine = IncrementalEngine(weights, serving.features, pool_bytes=SLOTS_BYTES, version=serving.version)
    return replace(serving, engine=engine)


@pytest.mark.usefixtures("small_chunks")
def test_a_swap_in_the_middle_of_a_member_does_not_use_a_cache_that_a_late_play_made_stale(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 1)
    pipeline.start_migration(second)
    assert pipeline.step_migration()
    run(pipeline, [log.play("user-0", 9, 50)])
    assert pipeline.swap(second) == 0
    (answer,) = intents(
        run(pipeline, [log.play("user-0", 8, 150)])
    )  # within the encoded plays, after the first late play
    expect_full_recomputation(pipeline, answer)


def test_a_bundle_that_can_encode_no_member_is_refused_and_the_old_one_serves_every_member(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 9)
    second = broken(second)
    pipeline.start_migration(second)
    with pytest.raises(BundleError) as refused:
        migrate_all(pipeline)
    assert refused.value.fault is BundleFault.NOT_FINITE
    assert pipeline.metrics.registry.get_sample_value("intentrec_migrated_members") == 0
    assert second.engine.num_cached == 0
    result = run(pipeline, [log.play(f"user-{i}", 1, 10_000.0 + i) for i in range(9)])
    assert {answer.bundle for answer in lists(result)} == {first.version}
    assert len(lists(result)) == 9


@pytest.mark.usefixtures("small_chunks")
def test_members_who_migrated_to_a_refused_bundle_go_back_with_all_their_plays(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 40)
    pipeline.start_migration(second)
    for _ in range(10):  # chunks of 4 plays: six members of 6 plays
        assert pipeline.step_migration()
    run(pipeline, [log.play("user-39", 6, 5_000)])  # late, and not seen by the first bundle
    with faulty(second, spoils=range(1, 40)), pytest.raises(BundleError):
        migrate_all(pipeline)
    late = log.play("user-39", 7, 13_000)  # within the plays that the first bundle has cached, after that late play
    answers = intents(run(pipeline, [*(log.play(f"user-{i}", 1, 70_000.0 + i) for i in range(39)), late]))
    assert len(answers) == 40
    assert {answer.bundle for answer in answers} == {first.version}
    for answer in answers:
        expect_full_recomputation(pipeline, answer)


def test_a_member_whom_the_coming_bundle_cannot_encode_stays_with_the_old_one(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 3, num_plays=2)
    run(pipeline, [log.play("user-1", 29, 9_000)])
    row = first.vocabulary.row("item-29")
    pipeline.start_migration(second)
    with faulty(second, raises=lambda rows, _: row in rows):
        migrate_all(pipeline)
    result = run(pipeline, [log.play(f"user-{i}", 1, 10_000.0 + i) for i in range(3)])
    assert {a.user_id: a.bundle for a in lists(result)} == {
        "user-0": second.version,
        "user-1": first.version,
        "user-2": second.version,
    }
    assert pipeline.swap(second) == 2


def test_items_watched_during_a_migration_are_hidden_by_the_bundle_that_serves_again(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    log = PlayLog()
    pipeline = played_in(first, log, 2, num_plays=3, num_recommendations=30)
    pipeline.start_migration(second)
    migrate_all(pipeline)
    run(pipeline, [log.play("user-0", 20, 9_000), log.play("user-0", 21, 9_100)])
    pipeline.abort_migration()
    again = lists(run(pipeline, [log.play("user-0", 22, 9_200)]))[0]
    fresh = make_pipeline(first, num_recommendations=30)
    expected = lists(run(fresh, [record for record in log.records if record.key == b"user-0"]))[-1]
    assert again.bundle == expected.bundle == first.version
    assert not {"item-20", "item-21", "item-22"} & {item.item_id for item in again.items}
    assert [item.item_id for item in again.items] == [item.item_id for item in expected.items]


@pytest.mark.parametrize("ends", ["aborted", "swapped and back"])
def test_the_old_bundle_knows_of_a_late_play_that_was_queued_when_the_migration_started(
    tmp_path: Path, ends: str
) -> None:
    world, log = TinyWorld(window=8), PlayLog()
    first, second = (make_serving(tmp_path, world, world.model(seed)) for seed in (1, 2))
    pipeline = make_pipeline(first, max_prefill_positions=1)
    run(pipeline, [log.play("ann", (7 * i + 3) % 30, 10_000.0 * i) for i in range(8)])
    while pipeline.num_queued_chunks:
        answer_prefill(pipeline)
    pipeline.process({0: [log.play("ann", 9, 5_000)]})
    assert pipeline.num_queued_chunks
    pipeline.start_migration(second)
    migrate_all(pipeline)
    (queued,) = answer_prefill(pipeline)
    assert {answer.bundle for answer in intents(queued)} == {second.version}
    if ends == "aborted":
        pipeline.abort_migration()
    else:
        pipeline.swap(second)
        pipeline.swap(first)
    results = pipeline.process({0: [log.play("ann", 11, 45_000)]})  # late as well, after the first late play
    while pipeline.num_queued_chunks:
        results = answer_prefill(pipeline)
    (answer,) = intents(results[0])
    assert answer.bundle == first.version
    expect_full_recomputation(pipeline, answer)


def test_a_device_that_is_lost_during_a_migration_is_not_the_fault_of_the_bundle(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    pipeline = played_in(first, PlayLog(), 9)
    pipeline.start_migration(second)
    with faulty(second, raises=lambda *_: True, error=device_lost), pytest.raises(DeviceLost):
        pipeline.step_migration()
