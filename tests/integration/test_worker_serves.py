"""The real worker, a process of its own: it waits for a bundle, serves with it, swaps under load, survives a kill."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intentrec_core.bundle import BundleRef
from stream.announce import announce
from stream.broker import Broker
from stream.codec import decode_intent, decode_recommendation
from tests.broker_fixtures import RigMaker
from tests.bundle_world import SLOTS_BYTES, make_bundle
from tests.rig import Rig
from tests.worlds import DOMAIN, START_MS, TinyWorld

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def serving_rig(broker: Broker, make_rig: RigMaker, world: TinyWorld, tmp_path: Path) -> tuple[Rig, list[BundleRef]]:
    domain = tmp_path / "tiny.toml"
    domain.write_text(DOMAIN.format(window=world.window))
    rig = make_rig(
        broker,
        domain=str(domain),
        bundle_url=str(tmp_path / "store"),
        cache_dir=tmp_path / "cache",
        device="cpu",
        pool_bytes=SLOTS_BYTES,
    )
    rig.layout = world.layout
    return rig, [make_bundle(tmp_path / "store", world, world.model(seed)) for seed in (1, 2)]


def _plays(rig: Rig, num: int) -> Iterator[dict[str, Any]]:
    for play in rig.plays(num, num_users=20, item="item-"):
        number = int(play["event_id"][1:])
        play |= {
            "item_id": f"item-{number % 30}",
            "ts": START_MS + 10_000 * number,
            "duration_s": 90.0,
            "context": {"device": "tv", "max_maturity": 4},
        }
        yield play


def _announce(rig: Rig, bundle: BundleRef) -> None:
    asyncio.run(announce(rig.settings, bundle=bundle.version, url=rig.settings.bundle_url))


def _start(rig: Rig) -> Any:
    return rig.start_worker(module="stream.cli", arguments=["worker"])


def _bundles(rig: Rig) -> Counter[str]:
    by_source = {}
    for output in rig.outputs(rig.settings.recommendations_topic):
        message = decode_recommendation(output.value)
        assert message.items
        by_source[message.source.partition, message.source.offset] = message.bundle
    for output in rig.outputs(rig.settings.intents_topic):
        update = decode_intent(output.value)
        assert by_source[update.source.partition, update.source.offset] == update.bundle, "one play, one bundle"
    return Counter(by_source.values())


def test_serves_once_there_is_a_bundle_swaps_under_load_and_drains(serving_rig: tuple[Rig, list[BundleRef]]) -> None:
    rig, (first, second) = serving_rig
    worker = _start(rig)
    rig.produce(_plays(rig, 300))
    _announce(rig, first)
    rig.wait_for_answers(300)
    _announce(rig, second)
    deadline_s = time.monotonic() + 60
    while set(_bundles(rig)) != {first.version, second.version} and time.monotonic() < deadline_s:
        rig.produce(_plays(rig, 100), rate=200)
    answers = rig.wait_for_answers(rig.num_sent)
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert set(answers.values()) == {1}
    assert set(_bundles(rig)) == {first.version, second.version}
    assert rig.state() == rig.oracle()


def test_a_worker_that_waits_for_a_bundle_ends_at_once(
    serving_rig: tuple[Rig, list[BundleRef]], tmp_path: Path
) -> None:
    rig, _ = serving_rig
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    worker = _start(rig)
    deadline_s = time.monotonic() + 60
    while "no bundle can serve yet" not in worker.log() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    started_s = time.monotonic()
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert time.monotonic() - started_s < 10


@pytest.mark.kafka
def test_the_real_pipeline_loses_and_doubles_nothing_when_a_worker_is_killed(
    kafka_broker: Broker, make_rig: RigMaker, world: TinyWorld, tmp_path: Path
) -> None:
    rig = make_rig(
        kafka_broker,
        bundle_url=str(tmp_path / "store"),
        cache_dir=tmp_path / "cache",
        device="cpu",
        pool_bytes=SLOTS_BYTES,
    )
    rig.layout = world.layout
    _announce(rig, make_bundle(tmp_path / "store", world, world.model(1)))
    victim, survivor = _start(rig), _start(rig)
    rig.produce(_plays(rig, 1000), rate=150)
    rig.wait_for_answers(500)
    victim.send(signal.SIGKILL)
    rig.produce(_plays(rig, 1000), rate=150)
    answers = rig.wait_for_answers(2000, 90)
    assert survivor.terminate() == 0, survivor.log()[-2000:]
    assert len(answers) == 2 * 2000
    assert rig.state() == rig.oracle()
