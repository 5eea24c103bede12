"""Building a bundle: a worker can load it, and it is as of the newest play."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch

from index import artifact
from index.faiss_index import FaissIndex
from intentrec_core.bundle.format import (
    BUNDLE_FILES,
    GOLDEN,
    MANIFEST,
    PROFILE,
    content_version,
    encode_manifest,
    read_manifest,
    write_bundle,
)
from intentrec_core.bundle.model_folder import Model
from intentrec_core.engine.live import LiveEncoder
from intentrec_core.errors import BundleError, BundleFault, ConfigError, DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.context_batch import collate
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.table import PLAYS, PlayRow, plays_table
from stream.bundles import verification
from stream.bundles.builder import (
    TRAINED_UNTIL,
    BuiltBundle,
    build_bundle,
    golden_queries,
    newest_contexts,
    planning_queries,
    popularity,
)
from stream.bundles.serving import PLAYS_UNTIL, load_serving
from stream.bundles.verification import check_bundle
from stream.wire.sizes import OVERHEAD_BYTES, TopicLimits, largest_intent_update
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import DOMAIN_TEXT, TINY_MODEL, WalkingWorld

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def walk() -> WalkingWorld:
    return WalkingWorld()


@pytest.fixture(scope="module")
def model(walk: WalkingWorld) -> IntentRec:
    torch.manual_seed(0)
    return IntentRec(TINY_MODEL, walk.domain, walk.parts()[1]).eval()


def model_of(walk: WalkingWorld, network: IntentRec, trained_until_ms: int = START_MS) -> Model:
    vocabulary, item_table, _ = walk.parts()
    return Model(
        network=network,
        domain_text=DOMAIN_TEXT,
        vocabulary=vocabulary,
        catalogue=walk.catalogue,
        item_table=item_table,
        trained_until_ms=trained_until_ms,
    )


def build(root: Path, walk: WalkingWorld, network: IntentRec, **options: Any) -> BuiltBundle:
    return build_bundle(root, model_of(walk, network), walk.plays(400), **options)


def test_titles_that_lists_cut_are_named_when_a_bundle_is_built(
    tmp_path: Path, walk: WalkingWorld, model: IntentRec, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, *rest = walk.catalogue
    titled = [replace(first, title="x" * 1_200_000), replace(second, title="y" * 1025), *rest]
    whole = replace(model_of(walk, model), catalogue=Catalogue(titled))
    built = build_bundle(tmp_path, whole, walk.plays(400))
    assert (
        f"the titles of 2 items have more than 1024 characters and are cut in lists, the first is that of item {first.item_id}"
        in caplog.text
    )
    loaded, _ = check_bundle(built.ref.path)
    row = loaded.vocabulary.row(first.item_id)
    assert loaded.item_table.titles[row] == "x" * 1023 + "…"
    assert loaded.catalogue().get(first.item_id).title == "x" * 1_200_000, "the bundle keeps the data as it is"


def test_a_worker_can_serve_a_bundle_that_was_built(tmp_path: Path, walk: WalkingWorld, model: IntentRec) -> None:
    built = build(tmp_path, walk, model, parent="b000000000000", metrics={"hr_at_10": 0.5}, facts={"why": "test"})
    loaded, index = check_bundle(built.ref.path)
    assert loaded.version == built.ref.version
    assert loaded.manifest.parent == "b000000000000"
    assert loaded.manifest.metrics == {"hr_at_10": 0.5, "index_recall_at_10": 1.0}
    assert loaded.manifest.facts["why"] == "test"
    assert index.num_items == walk.num_items
    assert load_serving(built.ref.path, device="cpu", pool_bytes=1 << 20).version == built.ref.version
    assert "recall@10 against exact 1.0000" in built.line()


def test_a_bundle_of_data_that_make_a_filter_meaningless_is_not_built(
    tmp_path: Path, walk: WalkingWorld, model: IntentRec
) -> None:
    plays = walk.plays(400).drop_columns("context").append_column("context", pa.nulls(400, PLAYS.field("context").type))
    with pytest.raises(
        DataError, match=r"filter at_most maturity hides every item from every member: no play has a value"
    ):
        build_bundle(tmp_path, model_of(walk, model), plays)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_whose_messages_cannot_be_sent_is_refused_when_it_is_built(
    tmp_path: Path, walk: WalkingWorld, model: IntentRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = largest_intent_update(walk.domain) + OVERHEAD_BYTES
    monkeypatch.setattr(verification, "DEFAULT_LIMITS", TopicLimits(intents=room))
    build(tmp_path / "whole", walk, model)
    monkeypatch.setattr(verification, "DEFAULT_LIMITS", TopicLimits(intents=room - 1))
    with pytest.raises(BundleError, match="an intent update can take") as raised:
        build(tmp_path / "too large", walk, model)
    assert raised.value.fault is BundleFault.MESSAGE_SIZE


@pytest.mark.parametrize("kind", ["exact", "flat", "hnsw", "ivf"])
def test_a_bundle_of_an_earlier_release_has_no_profile_and_serves(
    tmp_path: Path, walk: WalkingWorld, model: IntentRec, kind: str
) -> None:
    path = build(tmp_path, walk, model, index_kind=kind).ref.path
    (path / PROFILE).unlink()
    manifest = read_manifest(path)
    entries = {name: entry for name, entry in manifest.files.items() if name != PROFILE}
    facts = {name: fact for name, fact in manifest.facts.items() if name != "index_choice"}
    older = msgspec.structs.replace(manifest, files=entries, facts=facts, version=content_version(entries))
    (path / MANIFEST).write_bytes(encode_manifest(older))
    path = path.rename(path.with_name(older.version))
    serving = load_serving(path, device="cpu", pool_bytes=1 << 20)
    assert (serving.version, artifact.kind_of(serving.index)) == (older.version, kind)
    loaded, _ = check_bundle(path)
    assert loaded.profile() is None


@pytest.fixture(scope="module")
def large_walk() -> WalkingWorld:
    """Enough items and members for every kind of index."""
    return WalkingWorld(num_items=artifact.PQ_FROM_ITEMS + 16, num_members=160)


@pytest.mark.parametrize("kind", artifact.CHOICES)
def test_every_kind_of_index_is_built_and_served(tmp_path: Path, large_walk: WalkingWorld, kind: str) -> None:
    torch.manual_seed(0)
    network = IntentRec(TINY_MODEL, large_walk.domain, large_walk.parts()[1]).eval()
    built = build_bundle(tmp_path, model_of(large_walk, network), large_walk.plays(2000), index_kind=kind)
    served = artifact.PQ_REFINE if kind == artifact.AUTO else kind
    assert built.index_kind == served
    assert built.recall > 0.9
    facts = check_bundle(built.ref.path)[0].manifest.facts
    assert facts["index_kind"] == served
    assert facts["index_choice"] == artifact.described(kind)
    serving = load_serving(built.ref.path, device="cpu", pool_bytes=1 << 20)
    assert artifact.kind_of(serving.index) == served
    assert (serving.index.search(np.ones((1, serving.index.dimension), dtype=np.float32), 10)[0] > 0).all()


@pytest.mark.parametrize("kind", ["pq-refine", "pruned"])
def test_a_kind_that_needs_more_items_or_members_is_refused_before_any_work(
    tmp_path: Path, walk: WalkingWorld, model: IntentRec, kind: str
) -> None:
    with pytest.raises(ConfigError, match=rf"index {kind} needs \d+ items and 128 members .* choose auto or flat"):
        build(tmp_path, walk, model, index_kind=kind)
    assert not any(tmp_path.iterdir())


def test_the_same_model_and_plays_are_the_same_bundle(tmp_path: Path, walk: WalkingWorld, model: IntentRec) -> None:
    assert build(tmp_path, walk, model).ref == build(tmp_path, walk, model).ref
    assert [path.name for path in tmp_path.iterdir()] == [build(tmp_path, walk, model).ref.version]


def test_a_bundle_is_of_its_newest_play_not_of_today(tmp_path: Path, walk: WalkingWorld, model: IntentRec) -> None:
    loaded, _ = check_bundle(build(tmp_path, walk, model).ref.path)
    newest_ms = START_MS + 399 * 30_000
    assert loaded.manifest.facts[PLAYS_UNTIL] == newest_ms
    assert loaded.manifest.facts[TRAINED_UNTIL] == START_MS, "what the model has learned, not what is known"
    age = next(head for head in walk.domain.heads if head.name == "age")
    np.testing.assert_array_equal(loaded.vectors.labels["age"], loaded.item_table.labels(age, newest_ms / 1000))
    assert loaded.vectors.labels["age"][1].tolist() == [1, 0, 0]  # released that day


def test_a_model_with_a_weight_that_is_not_finite_does_not_become_a_bundle(
    tmp_path: Path, walk: WalkingWorld, model: IntentRec
) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.item.weight[3, 0] = float("nan")
    with pytest.raises((BundleError, ValueError)):
        build(tmp_path, walk, broken)


def test_golden_queries_detect_an_index_of_other_vectors(tmp_path: Path, walk: WalkingWorld, model: IntentRec) -> None:
    built = build(tmp_path, walk, model)
    other = build(tmp_path, walk, IntentRec(TINY_MODEL, walk.domain, walk.parts()[1]))
    files: dict[str, bytes | Path] = {name: built.ref.path / name for name in BUNDLE_FILES}
    files[GOLDEN] = other.ref.path / GOLDEN
    mixed = write_bundle(tmp_path / "mixed", files=files, parent=None, created_at="", code_version="")
    with pytest.raises(BundleError) as refused:
        check_bundle(mixed.path)
    assert refused.value.fault is BundleFault.GOLDEN


def test_popularity_counts_the_last_seven_days_of_event_time(walk: WalkingWorld) -> None:
    rows = [(0, "item-1"), (1, "item-2"), (7, "item-2"), (8, "item-3"), (8, "unknown")]
    plays = plays_table(PlayRow(f"e{i}", "u", item, START_MS + day * DAY_MS) for i, (day, item) in enumerate(rows))
    counts = popularity(plays, walk.parts()[0], START_MS + 8 * DAY_MS)
    assert {row: count for row, count in enumerate(counts.tolist()) if count} == {3: 1.0, 4: 1.0}


def test_a_bundle_of_a_model_with_counts_has_its_gate(tmp_path: Path, walk: WalkingWorld) -> None:
    sizes = replace(TINY_MODEL, item_counts=True)
    network = IntentRec(sizes, walk.domain, walk.parts()[1]).eval()
    assert network.count_gate is not None
    torch.nn.init.constant_(network.count_gate.bias, 0.5)
    built = build_bundle(tmp_path, model_of(walk, network), walk.plays(400))
    serving = load_serving(built.ref.path, device="cpu", pool_bytes=1 << 20)
    assert serving.counts is not None
    np.testing.assert_array_equal(serving.counts.weights(np.zeros((2, sizes.width), dtype=np.float32)), 0.5)
    with pytest.raises(ConfigError, match="LiveEncoder has no counts of plays"):
        LiveEncoder(model_of(walk, network))


def test_no_bundle_is_built_without_plays(tmp_path: Path, walk: WalkingWorld, model: IntentRec) -> None:
    with pytest.raises(DataError, match="no plays"):
        build_bundle(tmp_path, model_of(walk, model), PLAYS.empty_table())


def test_auto_is_one_of_faiss_whatever_the_size(tmp_path: Path, walk: WalkingWorld, large_walk: WalkingWorld) -> None:
    for world, num_plays in ((walk, 400), (large_walk, 50)):  # few items; few members
        torch.manual_seed(0)
        model = model_of(world, IntentRec(TINY_MODEL, world.domain, world.parts()[1]).eval())
        built = build_bundle(tmp_path, model, world.plays(num_plays))
        assert isinstance(check_bundle(built.ref.path)[1], FaissIndex)


def test_an_index_is_planned_with_every_beta_and_neighbours_share_one(walk: WalkingWorld, model: IntentRec) -> None:
    features = walk.parts()[2]
    model = copy.deepcopy(model)
    model.intent_beta.data.fill_(0.7)
    contexts = newest_contexts(features, walk.plays(400), 40)
    asked, golden = (ask(model, features, contexts) for ask in (planning_queries, golden_queries))
    labels = slice(TINY_MODEL.width + 1, None)
    ratio = asked[:, labels].sum(axis=1) / golden[:, labels].sum(axis=1)
    np.testing.assert_allclose(ratio, np.resize([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], len(ratio)), rtol=1e-5)
    # As trained, they are what the model itself scores items with; of its labels those of the catalogue.
    batch = collate(features.columns(contexts, [0] * len(contexts)))
    with torch.inference_mode():
        own = model.queries(model(batch))[torch.arange(len(contexts)), batch.lengths - 1].numpy()
    golden = np.delete(golden, TINY_MODEL.width, axis=1)  # the 1 that the bias is multiplied with
    np.testing.assert_allclose(golden[:, : own.shape[1]], own, rtol=1e-4, atol=1e-5)
    assert not golden[:, own.shape[1] :].any()
