"""Another bundle between two micro-batches: what changes, and what must not."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from intentrec_core import bundle
from intentrec_core.engine import IncrementalEngine
from intentrec_core.errors import BundleError, BundleFault, DeviceLost
from intentrec_core.reference import recompute
from stream import hot_swap
from stream.hot_swap import HotSwap
from stream.metrics import Metrics
from stream.pipeline import Pipeline
from stream.serving import COUNTED_UNTIL, Serving, load_serving
from stream.settings import Settings
from stream.warm_up import num_positions, warm_up
from tests.bundle_world import CREATED_AT, SLOTS_BYTES, PlayLog, make_bundle, make_pipeline, make_serving
from tests.faulty_encoder import device_lost, faulty
from tests.pipeline_results import intents, lists, run, state
from tests.worlds import DOMAIN, TinyWorld


@pytest.fixture
def servings(world: TinyWorld, tmp_path: Path) -> tuple[Serving, Serving]:
    return make_serving(tmp_path, world, world.model(1)), make_serving(tmp_path, world, world.model(2))


def expect_full_recomputation(pipeline: Pipeline, user: str, probabilities: dict[str, dict[str, float]]) -> None:
    """What was published of the newest play equals the bundle's own full recomputation."""
    serving = pipeline.serving
    full = recompute(serving.engine.model, serving.features, [bytes(state(pipeline, user).events)])
    for head, published in zip(serving.domain.heads, probabilities.values(), strict=True):
        m = serving.domain.heads.index(head)
        np.testing.assert_allclose(list(published.values()), full.heads[m][0], atol=2e-4)


def test_each_output_names_one_bundle_and_the_state_goes_on(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    for i in range(10):
        log.play("ann", i, 100.0 * i)
    before = run(pipeline, log.records[:5])
    pipeline.swap(second)
    after = run(pipeline, log.records[5:])
    assert {a.bundle for a in [*lists(before), *intents(before)]} == {first.version}
    assert {a.bundle for a in [*lists(after), *intents(after)]} == {second.version}
    assert state(pipeline, "ann").count == 10
    expect_full_recomputation(pipeline, "ann", intents(after)[-1].intents)


def test_what_is_written_after_a_swap_names_the_bundle_that_answered_it(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    records = [log.play("ann", i, 100.0 * i) for i in range(3)]
    pipeline = make_pipeline(first)
    write = pipeline.begin({0: records})
    pipeline.swap(second)
    write_next = pipeline.begin({0: [log.play("ann", 3, 400)]})
    (late,), (newest,) = write(), write_next()
    assert {a.bundle for a in [*lists(newest), *intents(newest)]} == {second.version}
    assert {a.bundle for a in [*lists(late), *intents(late)]} == {first.version}
    at_once = run(make_pipeline(first), records)
    assert [output.value for output in late.outputs] == [output.value for output in at_once.outputs]


def test_a_rollback_reuses_what_is_cached_but_nothing_that_a_late_play_has_changed(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    run(pipeline, [log.play("ann", i, 100.0 * i) for i in range(4)])
    run(pipeline, [log.play("ben", i, 100.0 * i) for i in range(4)])
    pipeline.swap(second)
    run(pipeline, [log.play("ann", 9, 50)])  # late, behind the back of the first bundle's cache
    pipeline.swap(first)
    hits = first.engine.stats.hits
    late = run(
        pipeline, [log.play("ann", 8, 150)]
    )  # late again: a cache from before the first late play would be wrong
    expect_full_recomputation(pipeline, "ann", intents(late)[0].intents)
    run(pipeline, [log.play("ben", 7, 500)])
    assert first.engine.stats.hits == hits + 1


def test_a_swap_is_warm_for_the_members_who_played_last(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    for i in range(60):
        log.play(f"user-{i % 20}", i % 30, 100.0 * i)
    run(pipeline, log.records)
    requests = pipeline.hottest(12)
    assert requests[0].user_id == "0/user-19"
    assert len(requests) == 12
    warmed = warm_up(second, requests, threading.Event())
    assert (warmed.num_members, warmed.num_bad) == (12, 0)
    pipeline.swap(second)
    misses = second.engine.stats.misses
    result = run(pipeline, [log.play(f"user-{i}", 1, 10_000.0 + i) for i in range(20)])
    assert second.engine.stats.misses == misses + 8
    for answer in intents(result):
        expect_full_recomputation(pipeline, answer.user_id, answer.intents)


def test_what_members_play_while_an_engine_warms_up_is_all_that_it_encodes_after(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    run(pipeline, [log.play(f"user-{i % 5}", i % 30, 100.0 * i) for i in range(30)])
    requests = pipeline.hottest(5)
    warm_up(second, requests, threading.Event())
    assert pipeline.played_on(requests) == []
    run(pipeline, [log.play("user-0", 7, 9_000), log.play("user-1", 9, 150)])
    behind = pipeline.played_on(requests)
    assert {(request.user_id, request.first_changed) for request in behind} == {("0/user-0", 6), ("0/user-1", 0)}
    assert num_positions(second, behind) == 1 + 7, "one play; and all of a context into which a late one came"
    positions = second.engine.stats.positions
    warm_up(second, behind, threading.Event())
    assert second.engine.stats.positions == positions + 1 + 7
    pipeline.swap(second)
    hits = second.engine.stats.hits
    answers = intents(run(pipeline, [log.play(f"user-{i}", 1, 10_000.0 + i) for i in range(5)]))
    assert second.engine.stats.hits == hits + 4, "whoever had a late play is encoded once more, to be sure"
    for answer in answers:
        expect_full_recomputation(pipeline, answer.user_id, answer.intents)


def test_a_bundle_that_can_encode_nobody_is_refused_while_warming_up(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    run(pipeline, [log.play(f"user-{i}", i, 100.0 * i) for i in range(9)])
    model = second.engine.model
    with torch.no_grad():
        model.item_encoder.leave_norm.weight.fill_(torch.nan)
    broken = IncrementalEngine(model, second.features, pool_bytes=SLOTS_BYTES, version=second.version)
    second = replace(second, engine=broken)
    with pytest.raises(BundleError) as refused:
        warm_up(second, pipeline.hottest(9), threading.Event())
    assert refused.value.fault is BundleFault.NOT_FINITE
    assert second.engine.num_cached == 0


def test_a_device_that_is_lost_while_a_bundle_warms_up_is_not_its_fault(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    run(pipeline, [log.play(f"user-{i}", i, 100.0 * i) for i in range(9)])
    with faulty(second, raises=lambda *_: True, error=device_lost), pytest.raises(DeviceLost):
        warm_up(second, pipeline.hottest(9), threading.Event())


def test_a_device_that_is_lost_while_a_bundle_warms_up_ends_the_worker_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lose(*_: object) -> None:
        raise DeviceLost("the device cuda:0 is lost")

    async def scenario() -> None:
        swap = HotSwap(Settings.load(), Metrics())
        monkeypatch.setattr(swap, "_follow", asyncio.Event().wait)
        monkeypatch.setattr(swap, "_keep_up", lose)
        with pytest.raises(DeviceLost):
            await swap.run(None, None)

    monkeypatch.setattr(hot_swap, "AnnouncementFollower", lambda settings: None)
    asyncio.run(scenario())


def test_a_domain_with_other_ground_state_is_refused(
    servings: tuple[Serving, Serving], world: TinyWorld, tmp_path: Path
) -> None:
    other = TinyWorld(window=8)
    pipeline = make_pipeline(servings[0])
    with pytest.raises(BundleError) as refused:
        pipeline.swap(make_serving(tmp_path, other, other.model(1), domain_text=DOMAIN.format(window=8)))
    assert refused.value.fault is BundleFault.DOMAIN
    assert pipeline.serving is servings[0]


def test_new_items_of_a_bundle_can_be_recommended(servings: tuple[Serving, Serving], tmp_path: Path) -> None:
    larger = TinyWorld(num_items=40)
    serving = make_serving(tmp_path, larger, larger.model(4))
    pipeline, log = make_pipeline(servings[0]), PlayLog()
    before = lists(run(pipeline, [log.play("ann", 35, 0)]))[0]
    pipeline.swap(serving)
    after = lists(run(pipeline, [log.play("ann", 36, 100)]))[0]
    assert (before.fallback, after.fallback) == ("popular", "none")


def test_what_is_judged_after_a_member_was_forgotten_leaves_no_prediction_of_them(
    servings: tuple[Serving, Serving],
) -> None:
    first, _ = servings
    pipeline, log = make_pipeline(first), PlayLog()
    write = pipeline.begin({0: [log.play("ann", 0, 0)]})
    pipeline.open_partition(0, {})
    write()
    run(pipeline, [log.play("ann", 1, 100)])
    run(pipeline, [log.play("ann", 2, 200)])
    labels = {"bundle": first.version}
    assert pipeline.metrics.registry.get_sample_value("intentrec_judged_plays_total", labels) == 1, "the last one alone"


def test_a_prediction_is_judged_under_the_bundle_that_made_it(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    run(pipeline, [log.play("ann", 1, 0)])
    pipeline.swap(second)
    run(pipeline, [log.play("ann", 2, 100), log.play("ann", 3, 200)])
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_judged_plays_total", {"bundle": first.version}) == 1
    assert sample("intentrec_judged_plays_total", {"bundle": second.version}) == 1


def test_metrics_name_the_bundle_that_serves(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    pipeline = make_pipeline(first)
    pipeline.swap(second)
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_bundle_info", {"bundle": second.version}) == 1
    assert sample("intentrec_bundle_info", {"bundle": first.version}) is None
    assert sample("intentrec_bundle_created_timestamp_seconds") == 1_704_067_200


def test_a_flipped_byte_keeps_a_bundle_from_being_loaded(world: TinyWorld, tmp_path: Path) -> None:
    path = make_bundle(tmp_path, world, world.model(1)).path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError) as refused:
        load_serving(path.parent, device="cpu", pool_bytes=1 << 20)
    assert refused.value.fault is BundleFault.CHECKSUM


def test_a_bundle_whose_index_answers_otherwise_than_when_it_was_built_is_not_loaded(
    world: TinyWorld, tmp_path: Path
) -> None:
    ref = make_bundle(tmp_path, world, world.model(1))
    files: dict[str, bytes | Path] = {name: (ref.path / name).read_bytes() for name in bundle.BUNDLE_FILES}
    golden = load_arrays((ref.path / bundle.GOLDEN).read_bytes())
    files[bundle.GOLDEN] = save_arrays(golden | {"rows": np.ascontiguousarray(golden["rows"][:, ::-1])})
    wrong = bundle.write_bundle(tmp_path, files=files, parent=None, created_at=CREATED_AT, code_version="0.1.0")
    with pytest.raises(BundleError) as refused:
        load_serving(wrong.path, device="cpu", pool_bytes=1 << 20)
    assert refused.value.fault is BundleFault.GOLDEN


def test_the_trainer_writes_the_fact_that_serving_reads() -> None:
    from stream.publish_bundle import PLAYS_UNTIL

    assert PLAYS_UNTIL == COUNTED_UNTIL
