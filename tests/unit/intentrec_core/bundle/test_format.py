"""Bundles: complete or absent, and each defect has its own reason."""

from __future__ import annotations

import json
import os
import time

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors

from index import artifact
from index.golden import check_golden, golden_bytes
from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.contents import ItemVectors, load_bundle
from intentrec_core.bundle.format import BUNDLE_FILES, MANIFEST, content_version, encode_manifest, verify_files
from intentrec_core.bundle.store import BundleStore
from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.errors import BundleError, BundleFault
from intentrec_core.model.model import IntentRec, ModelOutput
from stream.bundles.serving import load_serving
from tests.worlds.bundle_files import WORLD, build_index, fault_of, files_of, golden_check, write
from tests.worlds.networks import network_of
from tests.worlds.tiny_world import random_successors


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    return files_of(WORLD, folder)


@pytest.fixture
def ref(tmp_path, files):
    return write(tmp_path / "bundles", files)


def test_a_bundle_comes_back_as_it_was_written(ref):
    loaded = load_bundle(ref.path, golden=golden_check)
    assert loaded.version == ref.version == ref.path.name
    assert loaded.manifest.metrics == {"ndcg_at_10": 0.25}
    assert loaded.domain == WORLD.domain
    assert loaded.vocabulary == WORLD.vocabulary
    assert loaded.catalogue() == WORLD.catalogue
    assert loaded.popularity.tolist() == list(range(31))
    network = IntentRec.of(loaded.weights)
    assert not network.training
    for name, tensor in WORLD.model().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    assert list(loaded.vectors.labels) == [head.name for head in WORLD.domain.heads if head.is_item_label]


def test_a_bundle_says_which_heads_were_not_trained(tmp_path):
    class Part(type(WORLD)):
        def model(self, seed=0, **switches):
            made = super().model(seed, **switches)
            made.set_untrained_heads(["genre", "age"])
            return made

    files = files_of(Part(), tmp_path)
    loaded = load_bundle(write(tmp_path / "bundles", files).path)
    assert loaded.weights.untrained_heads == ("genre", "age")
    for untrained in (["none"], [head.name for head in WORLD.domain.heads], 7):
        card = json.loads(files[bundle.MODEL]) | {"untrained_heads": untrained}
        wrong = write(tmp_path / "wrong", files | {bundle.MODEL: json.dumps(card).encode()})
        assert fault_of(load_bundle, wrong.path) is BundleFault.SHAPE


def test_a_bundle_of_a_release_without_intents_in_the_score_serves_as_it_did(tmp_path, files):
    """Its weights have no beta, its sizes do not name the switch, and its labels are zeros and ones."""
    weights, card = load_arrays(files[bundle.WEIGHTS]), json.loads(files[bundle.MODEL])
    del weights["intent_beta"], card["intent_score"]
    arrays = load_arrays(files[bundle.VECTORS])
    arrays |= {name: (array > 0).astype(np.float32) for name, array in arrays.items() if name.startswith("labels.")}
    vectors = ItemVectors(
        arrays["weights"], arrays["bias"], {name: arrays[f"labels.{name}"] for name in ("genre", "age")}
    )
    index = build_index(vectors)
    asked = np.random.default_rng(1).normal(size=(5, index.dimension)).astype(np.float32)
    older = {
        bundle.WEIGHTS: save_arrays(weights),
        bundle.MODEL: json.dumps(card).encode(),
        bundle.VECTORS: save_arrays(arrays),
        bundle.INDEX: artifact.to_bytes(index),
        bundle.GOLDEN: golden_bytes(index, asked, 7),
    }
    serving = load_serving(write(tmp_path / "older", files | older).path, device="cpu", pool_bytes=1 << 20)
    assert not serving.label_betas.any()
    model = network_of(serving.engine)
    item = torch.randn(model.config.width)
    output = ModelOutput(item, tuple(torch.randn(head.num_labels) for head in WORLD.domain.heads), item[:0], item[:0])
    weight, bias = model.item_weights()
    torch.testing.assert_close(model.item_logits(model.queries(output)), weight @ item + bias)


def test_heads_that_share_keys_and_values_are_named_and_others_are_not(tmp_path, files):
    """A release that does not know the option reads what it can, and a bundle of such a release is the same one."""
    card = json.loads(files[bundle.MODEL])
    assert "num_kv_heads" not in card
    assert load_bundle(write(tmp_path / "own", files).path).weights.config.num_cached_heads == 2

    class Shared(type(WORLD)):
        def model(self, seed=0, **switches):
            return super().model(seed, num_kv_heads=1, **switches)

    shared = files_of(Shared(), tmp_path)
    serving = load_serving(write(tmp_path / "shared", shared).path, device="cpu", pool_bytes=1 << 20)
    model = serving.engine.weights
    assert model.config.num_cached_heads == 1
    assert serving.engine.num_contexts == (1 << 20) // context_bytes(model)
    for wrong in (2, 3, 0, "1", None):  # two are the heads' own: not what these weights are of
        changed_card = json.dumps(json.loads(shared[bundle.MODEL]) | {"num_kv_heads": wrong}).encode()
        refused = write(tmp_path / "wrong", shared | {bundle.MODEL: changed_card})
        assert fault_of(load_bundle, refused.path) is BundleFault.SHAPE


SUCCESSORS = random_successors(31, weight=1.5)


@pytest.fixture
def with_successors(tmp_path):
    folder = tmp_path / "with successors"
    folder.mkdir()
    return files_of(WORLD, folder, successors=SUCCESSORS)


def test_successors_come_back_as_they_were_written_and_a_bundle_without_them_serves(tmp_path, files, with_successors):
    loaded = load_bundle(write(tmp_path / "bundles", with_successors).path)
    assert loaded.successors.weight == 1.5
    for name in ("starts", "rows", "counts", "totals"):
        np.testing.assert_array_equal(getattr(loaded.successors.table, name), getattr(SUCCESSORS.table, name))
    assert bundle.SUCCESSORS not in files
    without = write(tmp_path / "bundles", files)
    assert load_bundle(without.path).successors is None
    assert load_serving(without.path, device="cpu", pool_bytes=1 << 20).successors is None


def test_successors_that_count_nothing_are_kept_and_not_served(tmp_path):
    files = files_of(WORLD, tmp_path, successors=random_successors(31, weight=0.0))
    path = write(tmp_path / "bundles", files).path
    assert load_bundle(path).successors.weight == 0
    assert load_serving(path, device="cpu", pool_bytes=1 << 20).successors is None


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("starts", None),
        ("weight", None),
        ("weight", np.array([np.nan], dtype=np.float32)),
        ("weight", np.array([1.0, 2.0], dtype=np.float32)),
        ("rows", np.zeros_like(SUCCESSORS.table.rows)),
        ("counts", SUCCESSORS.table.counts[1:]),
        ("totals", SUCCESSORS.table.totals.astype(np.float64)),
    ],
)
def test_successors_that_are_no_table_are_refused(tmp_path, with_successors, part, value):
    arrays = load_arrays(with_successors[bundle.SUCCESSORS])
    changed = {name: array for name, array in arrays.items() if name != part} | ({} if value is None else {part: value})
    wrong = write(tmp_path / "wrong", with_successors | {bundle.SUCCESSORS: save_arrays(changed)})
    assert fault_of(load_bundle, wrong.path) is BundleFault.SHAPE


def test_successors_of_other_items_are_refused(tmp_path, with_successors):
    folder = tmp_path / "fewer"
    folder.mkdir()
    fewer = files_of(WORLD, folder, successors=random_successors(30))[bundle.SUCCESSORS]
    assert fault_of(load_bundle, write(tmp_path / "wrong", with_successors | {bundle.SUCCESSORS: fewer}).path) is (
        BundleFault.SHAPE
    )
    damaged = write(tmp_path / "wrong", with_successors | {bundle.SUCCESSORS: b"no arrays"})
    assert fault_of(load_bundle, damaged.path) is BundleFault.SHAPE


def test_the_version_is_a_function_of_the_content_alone(tmp_path, files, ref):
    again = write(tmp_path / "elsewhere", files, parent="b000000000000", created_at="2030-01-01T00:00:00Z")
    other = write(tmp_path / "elsewhere", files | {bundle.INDEX: b"another"})
    assert again.version == ref.version != other.version


def test_writing_the_same_content_again_keeps_the_bundle_that_is_there(tmp_path, files, ref):
    before = (ref.path / MANIFEST).read_bytes()
    assert write(ref.path.parent, files, created_at="2030-01-01T00:00:00Z") == ref
    assert (ref.path / MANIFEST).read_bytes() == before
    assert os.listdir(ref.path.parent) == [ref.version]


def test_writing_replaces_a_damaged_bundle_of_the_same_content(files, ref):
    (ref.path / bundle.WEIGHTS).write_bytes(b"")
    assert write(ref.path.parent, files) == ref
    verify_files(ref.path)
    assert os.listdir(ref.path.parent) == [ref.version]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, files, monkeypatch):
    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "full", files)
    assert os.listdir(tmp_path / "full") == []


def test_files_and_folders_are_synced_before_and_after_the_rename(tmp_path, files, monkeypatch):
    synced, real = [], os.fsync

    def recording(descriptor):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    write(tmp_path / "bundles", files)
    assert sorted(synced[:-2]) == sorted([*BUNDLE_FILES, MANIFEST])
    assert synced[-2].startswith(".writing-")
    assert synced[-1] == "bundles"


def test_exactly_the_files_of_a_bundle_are_taken(tmp_path, files):
    with pytest.raises(ValueError, match="extra"):
        write(tmp_path, files | {"notes.txt": b""})
    with pytest.raises(ValueError, match="missing"):
        write(tmp_path, {name: files[name] for name in BUNDLE_FILES[1:]})


@pytest.mark.parametrize("file", [*BUNDLE_FILES, MANIFEST])
def test_a_flipped_byte_is_found_wherever_it_is(ref, file):
    path = ref.path / file
    data = path.read_bytes()
    wanted = {BundleFault.MANIFEST, BundleFault.CODE_VERSION} if file == MANIFEST else {BundleFault.CHECKSUM}
    for place in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert fault_of(verify_files, ref.path) in wanted
    path.write_bytes(data)
    verify_files(ref.path)


def test_no_flipped_bit_of_the_manifest_goes_unseen(ref):
    path = ref.path / MANIFEST
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert fault_of(verify_files, ref.path) in {BundleFault.MANIFEST, BundleFault.CODE_VERSION}


def test_missing_and_extra_files_have_their_own_reasons(ref):
    (ref.path / "notes.txt").write_text("hello")
    assert fault_of(load_bundle, ref.path) is BundleFault.UNEXPECTED_FILE
    (ref.path / "notes.txt").unlink()
    (ref.path / bundle.ITEMS).unlink()
    assert fault_of(load_bundle, ref.path) is BundleFault.MISSING_FILE
    (ref.path / MANIFEST).unlink()
    assert fault_of(load_bundle, ref.path) is BundleFault.MISSING_FILE
    assert fault_of(load_bundle, ref.path.with_name("b0123456789ab")) is BundleFault.MISSING_FILE


def test_a_renamed_bundle_is_refused(ref):
    moved = ref.path.rename(ref.path.with_name("b0123456789ab"))
    assert fault_of(load_bundle, moved) is BundleFault.MANIFEST


def test_a_bundle_of_another_format_is_refused_with_the_remedy(ref):
    manifest = bundle.read_manifest(ref.path)
    later = msgspec.structs.replace(manifest, format=99)
    (ref.path / MANIFEST).write_bytes(encode_manifest(later))
    with pytest.raises(BundleError, match=r"format 99.*run the code that wrote it"):
        load_bundle(ref.path)
    with_more = json.loads(encode_manifest(later)) | {"signature": "of a later format"}
    (ref.path / MANIFEST).write_text(json.dumps(with_more))
    assert fault_of(load_bundle, ref.path) is BundleFault.CODE_VERSION


def test_a_manifest_that_lists_other_files_is_refused(ref):
    manifest = bundle.read_manifest(ref.path)
    fewer = {name: entry for name, entry in manifest.files.items() if name != bundle.INDEX}
    forged = msgspec.structs.replace(manifest, files=fewer, version=content_version(fewer))
    (ref.path / MANIFEST).write_bytes(encode_manifest(forged))
    assert fault_of(load_bundle, ref.path) is BundleFault.MANIFEST


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were hashed, in order."""
    names, real = [], bundle.file_entry

    def entry(path):
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(bundle, "file_entry", entry)
    return names


def test_a_load_from_a_folder_hashes_each_file_once(ref, hashed):
    load_bundle(ref.path, golden=golden_check)
    assert sorted(hashed) == sorted(BUNDLE_FILES)


def test_fetching_a_bundle_and_loading_it_hashes_each_file_once(tmp_path, ref, hashed):
    store = BundleStore(str(ref.path.parent), tmp_path / "cache")
    load_bundle(store.fetch(ref.version), golden=golden_check)  # into an empty cache
    assert sorted(hashed) == sorted(BUNDLE_FILES)
    hashed.clear()
    load_bundle(store.fetch(ref.version), golden=golden_check)  # from the cache
    assert sorted(hashed) == sorted(BUNDLE_FILES)


@pytest.mark.parametrize("file", BUNDLE_FILES)
def test_a_file_changed_after_the_fetch_is_refused_at_load(tmp_path, ref, file):
    store = BundleStore(str(ref.path.parent), tmp_path / "cache")
    fetched = store.fetch(ref.version)
    time.sleep(0.02)  # more than a step of the file system's clock
    path = fetched.path / file
    times = path.stat()
    data = path.read_bytes()
    with path.open("r+b") as written:  # the same inode and the same size ...
        written.write(bytes([data[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # ... and even the same time of modification
    assert fault_of(load_bundle, fetched) is BundleFault.CHECKSUM


def test_a_fetched_bundle_whose_manifest_or_folder_changed_is_refused_at_load(tmp_path, ref):
    fetched = BundleStore(str(ref.path.parent), tmp_path / "cache").fetch(ref.version)
    (fetched.path / "notes.txt").write_text("hello")
    assert fault_of(load_bundle, fetched) is BundleFault.UNEXPECTED_FILE
    (fetched.path / "notes.txt").unlink()
    (fetched.path / MANIFEST).write_bytes((fetched.path / MANIFEST).read_bytes() + b" ")
    assert fault_of(load_bundle, fetched) is BundleFault.MANIFEST


def changed(files, file, **arrays):
    return {file: save_arrays(load_arrays(files[file]) | arrays)}


def test_a_wrong_shape_is_found_though_the_checksums_are_right(tmp_path, files):
    wrong = [
        changed(files, bundle.POPULARITY, popularity=np.zeros(30, dtype=np.float32)),
        changed(files, bundle.POPULARITY, popularity=np.zeros(31, dtype=np.float64)),
        changed(files, bundle.VECTORS, bias=np.zeros((31, 1), dtype=np.float32)),
        changed(files, bundle.VECTORS, surplus=np.zeros(31, dtype=np.float32)),
        changed(files, bundle.WEIGHTS, item_bias=np.zeros(12, dtype=np.float32)),
        changed(files, bundle.WEIGHTS, item_bias=np.zeros(31, dtype=np.float64)),
        {bundle.WEIGHTS: save_tensors({"item_bias": torch.zeros(31, dtype=torch.bfloat16)})},
        {bundle.WEIGHTS: b"not safetensors"},
        {bundle.MODEL: b'{"width": 32, "num_heads": 2, "num_layers": 2, "intent_width": 8}'},
        {bundle.MODEL: b'{"depth": 3}'},
        {bundle.MODEL: b"[]"},
    ]
    for change in wrong:
        assert fault_of(load_bundle, write(tmp_path / "wrong", files | change).path) is BundleFault.SHAPE


def test_a_number_that_is_not_finite_is_found(tmp_path, files):
    weights = load_arrays(files[bundle.WEIGHTS])["item.weight"]
    vectors = load_arrays(files[bundle.VECTORS])["weights"]
    weights[3, 1], vectors[4, 2] = np.nan, np.inf
    popularity = np.full(31, np.nan, dtype=np.float32)
    for change in (
        changed(files, bundle.WEIGHTS, **{"item.weight": weights}),
        changed(files, bundle.VECTORS, weights=vectors),
        changed(files, bundle.POPULARITY, popularity=popularity),
    ):
        assert fault_of(load_bundle, write(tmp_path / "wrong", files | change).path) is BundleFault.NOT_FINITE


def test_domain_and_tables_that_do_not_parse_have_their_own_reasons(tmp_path, files):
    for change, fault in (
        ({bundle.DOMAIN: b"name = 3"}, BundleFault.DOMAIN),
        ({bundle.DOMAIN: b"\xff"}, BundleFault.DOMAIN),
        ({bundle.VOCABULARY: b"no parquet"}, BundleFault.VOCABULARY),
        ({bundle.ITEMS: b""}, BundleFault.VOCABULARY),
    ):
        assert fault_of(load_bundle, write(tmp_path / "wrong", files | change).path) is fault


def test_vectors_of_other_weights_are_refused(tmp_path, files):
    (tmp_path / "other").mkdir()
    other = files_of(WORLD, tmp_path / "other", seed=9)
    mixed = files | {name: other[name] for name in (bundle.VECTORS, bundle.INDEX, bundle.GOLDEN)}
    assert fault_of(load_bundle, write(tmp_path / "wrong", mixed).path) is BundleFault.GOLDEN


def test_failed_golden_queries_are_refused(tmp_path, files):
    golden = load_arrays(files[bundle.GOLDEN])
    rows = golden["rows"].copy()
    rows[2, 0], rows[2, 6] = rows[2, 6], rows[2, 0]
    bundle_ = write(tmp_path / "wrong", files | changed(files, bundle.GOLDEN, rows=rows))
    load_bundle(bundle_.path)
    assert fault_of(load_bundle, bundle_.path, golden=golden_check) is BundleFault.GOLDEN
    for change in (
        {bundle.GOLDEN: b"nothing"},
        changed(files, bundle.GOLDEN, queries=np.ones((5, 3), dtype=np.float32)),
        changed(files, bundle.GOLDEN, rows=rows[:, :3]),
        {bundle.GOLDEN: save_arrays({"queries": golden["queries"]})},
        {bundle.INDEX: b"no index"},
    ):
        path = write(tmp_path / "wrong", files | change).path
        assert fault_of(load_bundle, path, golden=golden_check) is BundleFault.SHAPE


def test_golden_answers_forgive_rounding_but_not_another_answer():
    vectors = np.eye(6, dtype=np.float32)
    vectors[2], vectors[3] = vectors[1], vectors[1]  # rows 1, 2, 3 tie
    index = artifact.build(vectors)
    query = np.array([[0, 1, 0, 0, 0.5, 0]], dtype=np.float32)
    arrays = load_arrays(golden_bytes(index, query, 2))
    assert arrays["rows"].tolist() == [[1, 2]]
    check_golden(
        index, save_arrays(arrays | {"rows": np.array([[3, 1]])}), "b"
    )  # tied, as other hardware may order them
    check_golden(index, save_arrays(arrays | {"scores": arrays["scores"] * np.float32(1.00001)}), "b")
    not_the_best = save_arrays(
        {"queries": query, "rows": np.array([[1, 4]]), "scores": np.array([[1, 0.5]], np.float32)}
    )
    assert fault_of(check_golden, index, not_the_best, "b") is BundleFault.GOLDEN
    for answer in ([[4, 1]], [[-1, 1]]):
        assert (
            fault_of(check_golden, index, save_arrays(arrays | {"rows": np.array(answer)}), "b") is BundleFault.GOLDEN
        )
    worse = save_arrays(arrays | {"scores": arrays["scores"] * np.float32(1.01)})
    assert fault_of(check_golden, index, worse, "b") is BundleFault.GOLDEN
