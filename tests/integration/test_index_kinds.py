"""Each kind of index from end to end: the product's builder, an announcement, the real worker, plays in, lists out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import torch

from index import artifact
from index.base import ItemIndex
from index.exact import ExactIndex
from intentrec_core.bundle.model_folder import Model
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.table import PlayRow
from stream.bundles.builder import build_bundle
from stream.bundles.serving import load_serving
from stream.kafka.replay import play_message
from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_recommendation, encode
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig, Worker
from tests.rigs.serving_rig import announce_bundle, start_serving, until
from tests.worlds.bundle_world import SLOTS_BYTES, Record, make_pipeline
from tests.worlds.pipeline_results import lists, run
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import DOMAIN_TEXT, TINY_MODEL, WalkingWorld

pytestmark = pytest.mark.timeout(300)

NUM_PLAYS = 160
#: By event id, the items of a list, best first.
Lists = dict[str, list[str]]


@dataclass
class Service:
    """One worker for all kinds, one bundle after another; the store, and what every bundle is made of."""

    rig: Rig
    worker: Worker
    world: WalkingWorld
    model: Model


@pytest.fixture(scope="module")
def service(embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "tiny.toml").write_text(DOMAIN_TEXT)
    world = WalkingWorld(num_items=artifact.PQ_FROM_ITEMS + 16, num_members=160)
    torch.manual_seed(0)
    vocabulary, item_table, _ = world.parts()
    network = IntentRec(TINY_MODEL, world.domain, item_table).eval()
    model = Model(
        network=network,
        domain_text=DOMAIN_TEXT,
        vocabulary=vocabulary,
        catalogue=world.catalogue,
        item_table=item_table,
        trained_until_ms=START_MS,
    )
    options = {
        "domain": str(folder / "tiny.toml"),
        "bundle_url": str(folder / "store"),
        "cache_dir": folder / "cache",
        "device": "cpu",
        "pool_bytes": SLOTS_BYTES,
    }
    rig = Rig(embedded_broker, folder, options)
    try:
        yield Service(rig, start_serving(rig), world, model)
    finally:
        rig.stop()


@pytest.mark.parametrize("kind", artifact.KINDS)
def test_a_worker_serves_what_its_bundle_holds(service: Service, kind: str) -> None:
    rig, worker = service.rig, service.worker
    built = build_bundle(Path(rig.settings.bundle_url), service.model, service.world.plays(2000), index_kind=kind)
    announce_bundle(rig, built.ref)
    says = f"bundle {built.ref.version} is loaded", f"{built.ref.version} serves instead of"
    until(lambda: any(line in worker.log() for line in says), ANSWERS_WITHIN_S, worker)
    (line,) = (line for line in worker.log().splitlines() if any(said in line for said in says))
    assert f"index {kind};" in line or line.endswith(f"its index is {kind}")
    plays = [
        row._replace(user_id=f"{kind}-{row.user_id}", event_id=f"{kind}-{row.event_id}")
        for row in service.world.rows(NUM_PLAYS, seed=1)
    ]
    rig.produce(msgspec.json.decode(encode(play_message(play))) for play in plays)
    published: Lists = {}

    def answered() -> bool:
        messages = [decode_recommendation(output.value) for output in rig.outputs(rig.settings.recommendations_topic)]
        published.update(
            {m.event_id: [item.item_id for item in m.items] for m in messages if m.event_id.startswith(f"{kind}-")}
        )
        assert {m.bundle for m in messages if m.event_id in published} <= {built.ref.version}
        return len(published) == NUM_PLAYS

    until(answered, ANSWERS_WITHIN_S, worker)
    exact = exact_lists(built.ref.path, plays)
    assert all(len(items) == 10 for items in exact.values())
    found = sum(len(set(items) & set(published[event_id])) for event_id, items in exact.items())
    # Where two items score nearly the same, the worker's batches may round otherwise than this one.
    assert found / (10 * NUM_PLAYS) >= (0.998 if kind in (artifact.EXACT, "flat") else 0.98)


def exact_lists(bundle: Path, plays: Sequence[PlayRow]) -> Lists:
    """The lists of a pipeline of this process, which scores every item of the same bundle."""
    serving = load_serving(bundle, device="cpu", pool_bytes=SLOTS_BYTES)
    exact: ItemIndex = getattr(serving.index, "exact", serving.index)
    assert isinstance(exact, ExactIndex)
    pipeline = make_pipeline(replace(serving, index=exact))
    records = [
        Record(offset, encode(play_message(play)), play.user_id.encode(), timestamp=play.ts_ms + 1000)
        for offset, play in enumerate(plays)
    ]
    return {message.event_id: [item.item_id for item in message.items] for message in lists(run(pipeline, records))}
