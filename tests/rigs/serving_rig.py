"""The real worker on a rig: `intentrec worker` processes with tiny models, plays of the small world, bundles and announcements.

A pytest plugin: ``make_serving_rig(broker)`` gives a rig whose store holds two bundles, none of them announced.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from intentrec_core.bundle.format import BundleRef
from stream.bundles.announcements import announce
from stream.local_kafka.broker import Broker
from stream.ops.scrape import is_ready, scrape
from stream.wire.codec import decode_intent, decode_recommendation
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig, Worker
from tests.worlds.bundle_world import SLOTS_BYTES, make_bundle
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

ServingRig = tuple[Rig, list[BundleRef]]
ServingRigMaker = Callable[..., ServingRig]
PLAY_EVERY_MS = 10_000


@pytest.fixture
def make_serving_rig(make_rig: RigMaker, world: TinyWorld, tmp_path: Path) -> ServingRigMaker:
    def make(broker: Broker, **options: Any) -> ServingRig:
        domain = tmp_path / "tiny.toml"
        domain.write_text(DOMAIN.format(window=world.window))
        places = {"domain": str(domain), "bundle_url": str(tmp_path / "store"), "cache_dir": tmp_path / "cache"}
        rig = make_rig(broker, **(places | {"device": "cpu", "pool_bytes": SLOTS_BYTES} | options))
        rig.layout = world.layout
        return rig, [make_bundle(tmp_path / "store", world, world.model(seed)) for seed in (1, 2)]

    return make


def world_plays(rig: Rig, num: int, num_users: int = 20) -> Iterator[dict[str, Any]]:
    """Valid plays of the small world's items, numbered on from those made before."""
    for play in rig.plays(num, num_users=num_users):
        number = int(play["event_id"][1:])
        yield play | {
            "item_id": f"item-{number % 30}",
            "ts": START_MS + PLAY_EVERY_MS * number,
            "duration_s": 90.0,
            "context": {"device": "tv", "max_maturity": 4},
        }


def announce_bundle(rig: Rig, bundle: BundleRef) -> None:
    """Announces a bundle of the rig's store under the next number."""
    asyncio.run(announce(rig.settings, bundle=bundle.version, url=rig.settings.bundle_url))


def start_serving(rig: Rig, **environment: str) -> Worker:
    """Starts a real worker."""
    return rig.start_worker(module="stream.cli", arguments=["worker"], **environment)


def wait_ready(worker: Worker, timeout_s: float = ANSWERS_WITHIN_S) -> None:
    """Returns when /readyz says yes."""
    until(lambda: is_ready(worker.metrics_port), timeout_s, worker)


def counted(worker: Worker, name: str, **labels: str) -> float:
    """A metric of the worker, without the prefix; NaN where it does not answer, of which no comparison holds.

    What a worker counts of plays is raised once they are committed: wait for the number (:func:`until`), not for outputs.
    """
    samples = scrape(worker.metrics_port)
    return samples.total(f"intentrec_{name}", **labels) if samples else math.nan


def until(holds: Callable[[], bool], timeout_s: float, worker: Worker) -> None:
    """Waits for exactly what the test asserts, asking again and again; a failure shows the end of the worker's log."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        ended = worker.process.poll()  # before it is asked: what a worker does as it ends still counts
        if holds():
            return
        if time.monotonic() > deadline_s or ended is not None:
            pytest.fail(f"did not come to hold in {timeout_s} s (exit code {ended})\n{worker.log()[-3000:]}")
        time.sleep(0.1)


def bundles_named(rig: Rig) -> Counter[str]:
    """How many plays each bundle answered; recommendation and intent of a play must name the same one, every list has items."""
    by_source: dict[tuple[str, int, int], str] = {}
    for output in rig.outputs(rig.settings.recommendations_topic, rig.settings.intents_topic):
        recommends = output.topic == rig.settings.recommendations_topic
        message = decode_recommendation(output.value) if recommends else decode_intent(output.value)
        assert not recommends or message.items
        source = (message.source.topic, message.source.partition, message.source.offset)
        assert by_source.setdefault(source, message.bundle) == message.bundle, "one play, one bundle"
    return Counter(by_source.values())
