"""Announcements on a real broker, and bundles taken into service while plays are served."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from intentrec_core.bundle.format import BundleRef
from intentrec_core.errors import BundleFault, ConfigError
from stream.bundles.announcements import AnnouncementFollower, announce, newest
from stream.bundles.hot_swap import HotSwap
from stream.bundles.serving import Serving, load_serving
from stream.kafka.topics import create_topics
from stream.ops.metrics import Metrics
from stream.settings import Settings
from stream.wire.codec import encode
from stream.wire.messages import Announcement
from tests.rigs.swap_service import run, send, serve, tell
from tests.worlds.bundle_world import SLOTS_BYTES, make_bundle
from tests.worlds.tiny_world import TinyWorld

Test = Callable[..., Coroutine[Any, Any, None]]


#: What is about announcements and swaps; what only the store and the bundles decide runs on one.
on_both_brokers = pytest.mark.parametrize(
    "settings", ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True
)


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    broker = request.getfixturevalue(f"{getattr(request, 'param', 'embedded')}_broker")
    name = uuid.uuid4().hex[:8]
    return Settings(
        broker=broker.address,
        app_id=f"app-{name}",
        plays_topic=f"plays-{name}",
        recommendations_topic=f"recommendations-{name}",
        intents_topic=f"intents-{name}",
        dead_letter_topic=f"dlq-{name}",
        late_topic=f"late-{name}",
        model_updates_topic=f"updates-{name}",
        item_counts_topic=f"counts-{name}",
        num_partitions=1,
        bundle_url=str(tmp_path / "store"),
        cache_dir=tmp_path / "cache",
        device="cpu",
        pool_bytes=SLOTS_BYTES,
    )


@pytest.fixture
def bundles(settings: Settings, world: TinyWorld) -> list[BundleRef]:
    """Three bundles in the store, each one the parent of the next and older than it: versions alone have no order."""
    store, made = Path(settings.bundle_url), list[BundleRef]()
    for day in (1, 2, 3):
        parent = made[-1].version if made else None
        created_at = f"2024-01-0{day}T00:00:00.000Z"
        made.append(make_bundle(store, world, world.model(day), parent=parent, created_at=created_at))
    return made


@on_both_brokers
def test_numbers_rise_and_a_follower_sees_every_announcement(settings: Settings) -> None:
    async def test() -> None:
        await create_topics(settings)
        made = [await tell(settings, f"b{i:012x}") for i in range(3)]
        assert [announcement.sequence for announcement in made] == [1, 2, 3]
        async with AnnouncementFollower(settings) as follower:
            assert await follower.read() == made
            await tell(settings, "bffffffffffff")
            async for announcement in follower.follow():
                assert (announcement.sequence, announcement.bundle) == (4, "bffffffffffff")
                break

    run(test())


# Of two producers that write at once, the embedded broker may hide a record from a reader (decision 123): here, which was first.
@pytest.mark.kafka
@pytest.mark.parametrize("settings", ["kafka"], indirect=True)
def test_announcers_at_the_same_time_get_numbers_of_their_own(settings: Settings) -> None:
    async def test() -> None:
        await create_topics(settings)
        made = await asyncio.gather(*(tell(settings, f"b{i:012x}") for i in range(3)))
        assert len({announcement.sequence for announcement in made}) == 3
        async with AnnouncementFollower(settings) as follower:
            seen = await follower.read()
        for announcement in made:
            assert next(a for a in seen if a.sequence == announcement.sequence) == announcement

    run(test())


@on_both_brokers
def test_what_is_no_announcement_is_passed_over(settings: Settings) -> None:
    async def test() -> None:
        await create_topics(settings)
        await send(settings, b"", b"{}", b"\xff")
        made = await tell(settings, "b000000000001")
        async with AnnouncementFollower(settings) as follower:
            assert newest(await follower.read()) == made

    run(test())


@on_both_brokers
def test_a_worker_begins_with_what_was_announced_last(settings: Settings, bundles: list[BundleRef]) -> None:
    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[2].version)
        await tell(settings, bundles[0].version)
        async with HotSwap(settings, Metrics()) as swap:
            assert (await swap.first()).version == bundles[0].version

    run(test())


def test_a_worker_begins_with_the_parent_of_a_corrupt_bundle(settings: Settings, bundles: list[BundleRef]) -> None:
    async def test() -> None:
        await create_topics(settings)
        (bundles[2].path / "weights.safetensors").write_bytes(b"")
        await tell(settings, bundles[2].version, parent=bundles[1].version)
        metrics = Metrics()
        async with HotSwap(settings, metrics) as swap:
            assert (await swap.first()).version == bundles[1].version
        assert metrics.registry.get_sample_value("intentrec_bundle_rejections_total", {"reason": "checksum"}) == 1

    run(test())


def test_a_worker_begins_with_the_parent_of_a_bundle_that_cannot_be_loaded(
    settings: Settings, bundles: list[BundleRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(ref: BundleRef, **options: Any) -> Serving:
        if ref.version == bundles[2].version:
            raise RuntimeError("CUDA out of memory")
        return load_serving(ref, **options)

    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[2].version, parent=bundles[1].version)
        monkeypatch.setattr("stream.bundles.hot_swap.load_serving", load)
        metrics = Metrics()
        async with HotSwap(settings, metrics) as swap:
            assert (await swap.first()).version == bundles[1].version
        rejected = {"reason": BundleFault.CODE_VERSION.value}
        assert metrics.registry.get_sample_value("intentrec_bundle_rejections_total", rejected) == 1

    run(test())


def test_a_worker_begins_in_spite_of_an_announced_store_that_is_none(
    settings: Settings, bundles: list[BundleRef]
) -> None:
    async def test() -> None:
        await create_topics(settings)
        await announce(settings, bundle=bundles[1].version, url="nosuch://store", parent=None)
        async with HotSwap(settings, Metrics()) as swap:
            assert (await swap.first()).version in {bundles[0].version, bundles[2].version}  # of its own store

    run(test())


def test_a_worker_whose_own_settings_are_wrong_does_not_begin(settings: Settings, bundles: list[BundleRef]) -> None:
    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[1].version)
        async with HotSwap(settings.model_copy(update={"pool_bytes": 1}), Metrics()) as swap:
            with pytest.raises(ConfigError):
                await swap.first()

    run(test())


def test_a_worker_finds_the_one_bundle_that_can_serve_among_many(settings: Settings, world: TinyWorld) -> None:
    made = [make_bundle(Path(settings.bundle_url), world, world.model(seed)) for seed in range(8)]
    *newer, good = sorted(made, key=lambda ref: ref.version, reverse=True)  # all made at one time: by version then
    for ref in newer:
        (ref.path / "weights.safetensors").write_bytes(b"")

    async def test() -> None:
        await create_topics(settings)
        await tell(settings, newer[0].version)
        async with HotSwap(settings, Metrics()) as swap:
            assert (await swap.first()).version == good.version

    run(test())


def test_a_bundle_out_of_reach_at_the_start_serves_as_soon_as_it_can_be_had(
    settings: Settings, bundles: list[BundleRef], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / bundles[1].version / "manifest.json").mkdir(parents=True)  # reading it is an error of the store

    async def test() -> None:
        await create_topics(settings)
        await announce(settings, bundle=bundles[1].version, url=str(elsewhere), parent=None)
        async with serve(settings) as service:
            assert service.pipeline.serving.version == bundles[2].version  # the newest in its own store
            assert service.count("bundle_rejections_total", reason="unreachable") >= 1
            shutil.rmtree(elsewhere)
            shutil.copytree(settings.bundle_url, elsewhere)
            await service.until(bundles[1].version)

    run(test())


def test_without_an_announcement_a_worker_begins_with_the_store_or_waits_for_one(
    settings: Settings, world: TinyWorld
) -> None:
    async def test() -> None:
        await create_topics(settings)
        async with HotSwap(settings, Metrics()) as swap:
            waiting = asyncio.create_task(swap.first())
            await asyncio.sleep(0.5)
            assert not waiting.done()
            made = await asyncio.to_thread(make_bundle, Path(settings.bundle_url), world, world.model(1))
            assert (await waiting).version == made.version

    run(test())


@on_both_brokers
def test_an_announced_bundle_takes_over_and_members_stay_warm(settings: Settings, bundles: list[BundleRef]) -> None:
    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[0].version)
        async with serve(settings) as service:
            await service.play(40)
            await tell(settings, bundles[1].version, parent=bundles[0].version)
            await service.until(bundles[1].version)
            assert len(service.versions) == 5
            for versions in service.versions.values():
                assert (versions[0], versions[-1]) == (bundles[0].version, bundles[1].version)
                assert versions == sorted(versions, key=lambda v: v != bundles[0].version), "a member goes over once"
            assert service.count("bundle_swaps_total") == 1
            assert service.count("bundle_sequence") == 2
            assert service.count("bundle_swap_seconds_count") == 1
            assert service.pipeline.serving.engine.stats.misses <= 5 * 4  # not one a play: warm, but for anchor moves
            history = service.pipeline.history(0, "user-0")
            assert history is not None
            assert history.count == len([r for r in service.log.records if r.key == b"user-0"])

    run(test())


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("weights.safetensors", b"cut", "checksum"),
        ("index.faiss", None, "missing_file"),
        ("extra.txt", b"?", "unexpected_file"),
        ("manifest.json", b"{}", "manifest"),
    ],
)
def test_a_bad_bundle_leaves_the_old_one_serving(
    settings: Settings, bundles: list[BundleRef], file: str, content: bytes | None, reason: str
) -> None:
    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[0].version)
        if content is None:
            (bundles[1].path / file).unlink()
        else:
            (bundles[1].path / file).write_bytes(content)
        async with serve(settings) as service:
            await tell(settings, bundles[1].version)
            await service.until_refused(reason)
            await service.play()
            assert {v for versions in service.versions.values() for v in versions} == {bundles[0].version}
            await tell(settings, bundles[2].version)
            await service.until(bundles[2].version)

    run(test())


@on_both_brokers
def test_an_older_number_is_refused(settings: Settings, bundles: list[BundleRef]) -> None:
    async def test() -> None:
        await create_topics(settings)
        made = await tell(settings, bundles[0].version)
        made = await tell(settings, bundles[0].version)
        old = Announcement(sequence=1, bundle=bundles[1].version, url=made.url, created_at=made.created_at)
        async with serve(settings) as service:
            await send(settings, encode(old))
            await service.until_refused("stale_sequence")
            assert service.pipeline.serving.version == bundles[0].version

    run(test())


@on_both_brokers
def test_a_rollback_takes_the_bundle_kept_in_memory(settings: Settings, bundles: list[BundleRef]) -> None:
    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[0].version)
        async with serve(settings) as service:
            first = service.pipeline.serving
            await tell(settings, bundles[1].version)
            await service.until(bundles[1].version)
            shutil.rmtree(bundles[0].path)
            shutil.rmtree(settings.cache_dir)
            await tell(settings, bundles[0].version)
            await service.until(bundles[0].version)
            assert service.pipeline.serving is first

    run(test())


def test_a_store_that_cannot_be_reached_is_asked_again(
    settings: Settings, bundles: list[BundleRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        await create_topics(settings)
        await tell(settings, bundles[0].version)
        async with serve(settings) as service:
            folder = settings.cache_dir / "bundles"
            shutil.rmtree(folder)
            folder.write_bytes(b"")  # no folder can be made here: as on a disk that is full
            await tell(settings, bundles[1].version)
            await service.until_refused("unreachable")
            folder.unlink()
            await service.until(bundles[1].version)

    run(test())
