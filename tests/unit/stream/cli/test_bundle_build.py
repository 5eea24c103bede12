"""``intentrec bundle build``: from a model that the library saved to a bundle that a worker loads, with the same vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import intentrec_core as intentrec
from intentrec_core.bundle.contents import item_vectors
from intentrec_core.bundle.store import BundleStore
from intentrec_core.engine.engine import EncodeRequest
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.plays.table import plays_table
from stream.bundles.builder import TRAINED_UNTIL
from stream.bundles.serving import load_serving
from stream.bundles.verification import check_bundle
from stream.cli import root
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import DOMAIN_TEXT, TINY_MODEL, WalkingWorld

NUM_TRAINED, NUM_PLAYS = 300, 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the first plays of a walk, saved, beside all its plays."""
    folder, walk = tmp_path_factory.mktemp("saved"), WalkingWorld()
    (folder / "tiny.toml").write_text(DOMAIN_TEXT)
    model = intentrec.fit(
        walk.plays(NUM_TRAINED), walk.catalogue, domain=folder / "tiny.toml", epochs=1, seed=3,
        model_config=TINY_MODEL, device="cpu",
    )  # fmt: skip
    model.save(folder / "model")
    pq.write_table(walk.plays(NUM_PLAYS), folder / "plays.parquet")
    return folder


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTENTREC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INTENTREC_BUNDLE_URL", str(tmp_path / "bundles"))


def build(folder: Path, plays: str) -> int:
    return root.run(["bundle", "build", str(folder / "model"), "--plays", plays])


@pytest.mark.parametrize("plays", ["plays.parquet", "."])
def test_a_worker_serves_what_was_built_with_the_vectors_of_the_model(
    folder: Path, tmp_path: Path, plays: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(folder, str(folder / plays)) == 0
    store = BundleStore(str(tmp_path / "bundles"), tmp_path / "elsewhere")
    (manifest,) = store.list()
    assert f"bundle {manifest.version}: 20 items" in capsys.readouterr().out
    path = store.fetch(manifest.version).path
    model = intentrec.load(folder / "model", device="cpu")
    serving = load_serving(path, device="cpu", pool_bytes=1 << 20)
    loaded, _ = check_bundle(path)
    ours = item_vectors(model.network.weights(), model.item_table, serving.counted_at_s)
    np.testing.assert_array_equal(loaded.vectors.weights, ours.weights)
    np.testing.assert_array_equal(loaded.vectors.bias, ours.bias)
    assert loaded.manifest.facts[TRAINED_UNTIL] == START_MS + (NUM_TRAINED - 1) * 30_000 + 1
    assert serving.popularity.sum() == NUM_PLAYS

    live = intentrec.LiveEncoder(model, cache_bytes=1 << 20)
    attributes = {"device": "tv", "max_maturity": 3}
    now = live.play("ann", "item-3", ts_ms=START_MS, event_id="e", attributes=attributes)
    packed = serving.features.layout.pack("item-3", "e", START_MS, None, attributes)
    served = serving.engine.encode([EncodeRequest(MemberKey(0, "ann"), 0, packed.data, 0)])
    np.testing.assert_allclose(now.embedding, served.intent_NP[0], atol=1e-5)


def test_a_text_where_a_number_is_declared_is_refused_with_its_row(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*WalkingWorld().rows(NUM_PLAYS)]
    rows[3] = rows[3]._replace(context={"max_maturity": "x"})
    pq.write_table(plays_table(rows), tmp_path / "plays.parquet")
    assert build(folder, str(tmp_path / "plays.parquet")) == 3
    assert "plays: row 3, context max_maturity: 'x' is not a finite number" in capsys.readouterr().err


def test_plays_that_are_not_named_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["bundle", "build", str(folder / "model")]) == 2
    assert "is a model of the domain tiny: name its plays" in capsys.readouterr().err
    assert build(folder, str(folder / "none")) == 2
    assert "allowed: movielens-100k, a Parquet file of plays, or a folder" in capsys.readouterr().err


def test_plays_of_other_items_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plays = pq.read_table(folder / "plays.parquet")
    others = [f"other-{item}" for item in plays.column("item_id").to_pylist()]
    at = plays.schema.get_field_index("item_id")
    pq.write_table(plays.set_column(at, plays.schema.field(at), [others]), tmp_path / "others.parquet")
    assert build(folder, str(tmp_path / "others.parquet")) == 3
    assert "no play is of an item that the model knows" in capsys.readouterr().err


def test_a_damaged_model_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = intentrec.load(folder / "model", device="cpu").save(tmp_path / "model")
    (model / "vocabulary.parquet").write_bytes(b"")
    assert root.run(["bundle", "build", str(model), "--plays", str(folder)]) == 3
    assert "vocabulary.parquet has 0 bytes" in capsys.readouterr().err


def test_drift_is_measured_from_the_newest_bundle_of_the_same_domain(folder: Path, tmp_path: Path) -> None:
    walk, other = WalkingWorld(), tmp_path / "other"
    other.mkdir()
    (other / "other.toml").write_text(DOMAIN_TEXT.replace('name = "', 'name = "other_', 1))
    intentrec.fit(
        walk.plays(NUM_TRAINED),
        walk.catalogue,
        domain=other / "other.toml",
        epochs=1,
        model_config=TINY_MODEL,
        device="cpu",
    ).save(other / "model")
    for saved, num_plays in ((folder, 350), (other, 350), (folder, NUM_PLAYS)):
        pq.write_table(walk.plays(num_plays), other / "plays.parquet")
        assert build(saved, str(other / "plays.parquet")) == 0
    manifests = BundleStore(str(tmp_path / "bundles"), tmp_path / "elsewhere").list()

    assert ["data_drift" in manifest.metrics for manifest in manifests] == [True, False, False]
