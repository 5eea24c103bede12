"""A swap to another bundle between two micro-batches: what changes, and what stays."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from intentrec_core.bundle import format as bundle
from intentrec_core.errors import BundleError, BundleFault, DeviceLost
from stream.bundles.hot_swap import HotSwap
from stream.bundles.serving import Serving, load_serving
from stream.ops.metrics import Metrics
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.settings import Settings
from stream.wire.messages import Announcement
from tests.rigs.trainer_rig import until
from tests.worlds.bundle_world import CREATED_AT, PlayLog, make_bundle, make_pipeline, make_serving
from tests.worlds.pipeline_results import expect_full_recomputation, intents, lists, run, state
from tests.worlds.tiny_world import DOMAIN, TinyWorld


def test_each_output_names_one_bundle_and_the_state_continues(servings: tuple[Serving, Serving]) -> None:
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
    expect_full_recomputation(pipeline, intents(after)[-1])


def test_answers_written_after_a_swap_name_the_bundle_that_encoded_them(servings: tuple[Serving, Serving]) -> None:
    first, second = servings
    log = PlayLog()
    records = [log.play("ann", i, 100.0 * i) for i in range(3)]
    pipeline = make_pipeline(first)
    encoded = pipeline.encode({0: records})
    pipeline.swap(second)
    encoded_next = pipeline.encode({0: [log.play("ann", 3, 400)]})
    (late,), (newest,) = pipeline.respond(encoded), pipeline.respond(encoded_next)
    assert {a.bundle for a in [*lists(newest), *intents(newest)]} == {second.version}
    assert {a.bundle for a in [*lists(late), *intents(late)]} == {first.version}
    at_once = run(make_pipeline(first), records)
    assert [output.value for output in late.outputs] == [output.value for output in at_once.outputs]


def test_a_rollback_reuses_the_cache_except_for_members_with_a_late_play_since(
    servings: tuple[Serving, Serving],
) -> None:
    first, second = servings
    pipeline, log = make_pipeline(first), PlayLog()
    run(pipeline, [log.play("ann", i, 100.0 * i) for i in range(4)])
    run(pipeline, [log.play("ben", i, 100.0 * i) for i in range(4)])
    pipeline.swap(second)
    run(pipeline, [log.play("ann", 9, 50)])  # late, and the first bundle's cache has not seen it
    pipeline.swap(first)
    hits = first.engine.stats.hits
    late = run(
        pipeline, [log.play("ann", 8, 150)]
    )  # late again: a cache from before the first late play would be wrong
    expect_full_recomputation(pipeline, intents(late)[0])
    run(pipeline, [log.play("ben", 7, 500)])
    assert first.engine.stats.hits == hits + 1


class Announcements:
    """Announcements of this test, in place of the topic's."""

    def __init__(self, *bundles: str) -> None:
        self._coming = asyncio.Queue[Announcement]()
        self._sequence = 0
        for version in bundles:
            self.announce(version)

    def announce(self, version: str, url: str = "file:///store") -> None:
        self._sequence += 1
        self._coming.put_nowait(Announcement(sequence=self._sequence, bundle=version, url=url, created_at=CREATED_AT))

    async def follow(self) -> AsyncIterator[Announcement]:
        while True:
            yield await self._coming.get()


async def on_this_thread(function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


def test_a_device_that_is_lost_during_a_swap_ends_the_worker_with_its_own_error(
    servings: tuple[Serving, Serving],
) -> None:
    def lose(*_: object) -> Serving:
        raise DeviceLost("the device cuda:0 is lost")

    async def scenario() -> None:
        swap = HotSwap(Settings.load(), Metrics(), follower=Announcements("b0123456789ab"), load=lose)
        with pytest.raises(DeviceLost):
            await swap.run(make_pipeline(servings[0]), on_this_thread)

    asyncio.run(scenario())


def test_a_rollback_to_the_serving_bundle_aborts_a_migration_at_once() -> None:
    class Endless:
        """A pipeline whose members never finish migrating."""

        def __init__(self) -> None:
            self.serving, self.previous = SimpleNamespace(version="old", tables=None), None
            self.calls: list[str] = []
            self.aborted = asyncio.Event()

        def look_up(self, serving: object) -> None:
            self.calls.append("look up")

        def start_migration(self, serving: object) -> None:
            self.calls.append("start")

        def step_migration(self) -> bool:
            self.calls.append("step")
            if self.calls.count("step") == 3:
                announcements.announce("old")
            return True

        def abort_migration(self) -> None:
            self.calls.append("abort")
            self.aborted.set()

        def swap(self, serving: object) -> int:
            raise AssertionError

    announcements = Announcements("coming")

    async def scenario() -> None:
        pipeline = Endless()
        coming = SimpleNamespace(version="coming")
        swap = HotSwap(Settings.load(), Metrics(), follower=announcements, load=lambda *_: coming)
        running = asyncio.create_task(swap.run(pipeline, on_this_thread))
        async with asyncio.timeout(30):
            await pipeline.aborted.wait()
        running.cancel()
        # The announcement is read while a step pauses: one more step may have begun by then.
        assert pipeline.calls in (
            ["look up", "start", "step", "step", "step", "abort"],
            ["look up", "start", "step", "step", "step", "step", "abort"],
        )

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


@pytest.mark.parametrize("step", ["look_up", "start_migration"])
@pytest.mark.parametrize("error", [ValueError("no such field"), DeviceLost("the device cuda:0 is lost")])
def test_a_bundle_that_cannot_be_prepared_is_refused_and_only_a_lost_device_ends_the_worker(
    servings: tuple[Serving, Serving], monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    first, second = servings
    pipeline = make_pipeline(first)

    def fail(_: Serving) -> None:
        raise error

    async def scenario() -> None:
        metrics = Metrics()
        swap = HotSwap(Settings.load(), metrics, follower=Announcements(second.version), load=lambda *_: second)
        monkeypatch.setattr(pipeline, step, fail)
        running = asyncio.create_task(swap.run(pipeline, on_this_thread))
        if isinstance(error, DeviceLost):
            with pytest.raises(DeviceLost):
                await running
        else:
            refused = {"reason": BundleFault.CODE_VERSION}
            sample = metrics.registry.get_sample_value
            await until(lambda: sample("intentrec_bundle_rejections_total", refused), 30)
            running.cancel()
        assert pipeline.serving is first

    asyncio.run(scenario())


def test_nothing_of_a_bundle_that_is_refused_stays_in_memory(servings: tuple[Serving, Serving], tmp_path: Path) -> None:
    other = TinyWorld(window=8)
    pipeline = make_pipeline(servings[0], catalogue=LiveCatalogue())
    refused = make_serving(tmp_path, other, other.model(1), domain_text=DOMAIN.format(window=8))
    pipeline.look_up(refused)
    with pytest.raises(BundleError):
        pipeline.start_migration(refused)
    kept = weakref.ref(refused.engine)
    del refused
    gc.collect()
    assert kept() is None


def test_new_items_of_a_bundle_can_be_recommended(servings: tuple[Serving, Serving], tmp_path: Path) -> None:
    larger = TinyWorld(num_items=40)
    serving = make_serving(tmp_path, larger, larger.model(4))
    pipeline, log = make_pipeline(servings[0]), PlayLog()
    before = lists(run(pipeline, [log.play("ann", 35, 0)]))[0]
    pipeline.swap(serving)
    after = lists(run(pipeline, [log.play("ann", 36, 100)]))[0]
    assert (before.fallback, after.fallback) == ("popular", "none")


def test_an_answer_after_a_member_was_forgotten_leaves_no_prediction_of_that_member(
    servings: tuple[Serving, Serving],
) -> None:
    first, _ = servings
    pipeline, log = make_pipeline(first), PlayLog()
    encoded = pipeline.encode({0: [log.play("ann", 0, 0)]})
    pipeline.open_partition(0, {})
    pipeline.respond(encoded)
    run(pipeline, [log.play("ann", 1, 100)])
    run(pipeline, [log.play("ann", 2, 200)])
    labels = {"bundle": first.version}
    assert pipeline.metrics.registry.get_sample_value("intentrec_judged_plays_total", labels) == 1, (
        "the last play alone"
    )


def test_a_prediction_is_scored_for_the_bundle_that_made_it(servings: tuple[Serving, Serving]) -> None:
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


def test_a_bundle_with_a_flipped_byte_is_not_loaded(world: TinyWorld, tmp_path: Path) -> None:
    path = make_bundle(tmp_path, world, world.model(1)).path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError) as refused:
        load_serving(path.parent, device="cpu", pool_bytes=1 << 20)
    assert refused.value.fault is BundleFault.CHECKSUM


def test_a_bundle_whose_index_answers_differently_than_at_its_build_is_not_loaded(
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


def test_a_hot_swap_hashes_each_file_of_the_bundle_once(
    servings: tuple[Serving, Serving], world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = make_pipeline(servings[0])
    ref = make_bundle(tmp_path / "store", world, world.model(3))
    hashed, entry = [], bundle.file_entry

    def counted(path: Path) -> bundle.FileEntry:
        hashed.append(path.name)
        return entry(path)

    async def scenario() -> None:
        settings = Settings.load(bundle_url=str(tmp_path / "store"), cache_dir=tmp_path / "cache", device="cpu")
        announcements = Announcements()
        announcements.announce(ref.version, url=settings.bundle_url)
        running = asyncio.create_task(
            HotSwap(settings, Metrics(), follower=announcements).run(pipeline, on_this_thread)
        )
        await until(lambda: pipeline.serving.version == ref.version, 30)
        running.cancel()

    monkeypatch.setattr(bundle, "file_entry", counted)
    asyncio.run(scenario())
    assert pipeline.serving.version == ref.version
    assert sorted(hashed) == sorted(bundle.BUNDLE_FILES)
