"""The real worker, a process of its own: it waits for a bundle, serves with it, swaps under load, survives a kill."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream.local_kafka.broker import Broker
from tests.rigs.rig import ANSWERS_WITHIN_S
from tests.rigs.serving_rig import (
    ServingRig,
    ServingRigMaker,
    announce_bundle,
    bundles_named,
    start_serving,
    until,
    world_plays,
)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def serving_rig(broker: Broker, make_serving_rig: ServingRigMaker) -> ServingRig:
    return make_serving_rig(broker)


def test_serves_once_there_is_a_bundle_swaps_under_load_and_drains(serving_rig: ServingRig) -> None:
    rig, (first, second) = serving_rig
    worker = start_serving(rig)
    rig.produce(world_plays(rig, 300))
    announce_bundle(rig, first)
    rig.wait_for_answers(300)
    announce_bundle(rig, second)
    deadline_s = time.monotonic() + 60
    while set(bundles_named(rig)) != {first.version, second.version} and time.monotonic() < deadline_s:
        rig.produce(world_plays(rig, 100), rate=200)
    rig.wait_for_answers(rig.num_sent)
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert set(rig.answers().values()) == {1}
    assert set(bundles_named(rig)) == {first.version, second.version}
    assert rig.state() == rig.oracle()


def test_a_worker_that_waits_for_a_bundle_ends_at_once(serving_rig: ServingRig, tmp_path: Path) -> None:
    rig, _ = serving_rig
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    worker = start_serving(rig)
    until(lambda: "no bundle can serve yet" in worker.log(), ANSWERS_WITHIN_S, worker)
    started_s = time.monotonic()
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert time.monotonic() - started_s < 10
