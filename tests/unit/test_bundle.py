"""Bundles: whole or not at all, and whatever is wrong with one has its own reason."""

from __future__ import annotations

import json
import os

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from index import artifact, conditioning
from index.golden import check_golden, golden_bytes
from intentrec_core import bundle
from intentrec_core.bundle import BUNDLE_FILES, MANIFEST, content_version, encode_manifest, verify_files, write_bundle
from intentrec_core.bundle_contents import item_vectors, load_bundle, pack_files, verify_bundle
from intentrec_core.bundle_store import BundleStore
from intentrec_core.errors import BundleError, BundleFault, ConfigError
from tests.worlds import DOMAIN, START_MS, TinyWorld

CREATED = "2026-03-01T20:15:00.000Z"
WORLD = TinyWorld()


def build_index(vectors):
    return artifact.build(conditioning.augment(vectors.weights, vectors.bias, list(vectors.labels.values())))


def golden_check(loaded):
    vectors = loaded.vectors
    augmented = conditioning.augment(vectors.weights, vectors.bias, list(vectors.labels.values()))
    index = artifact.load(loaded.path / bundle.INDEX, augmented, loaded.version)
    check_golden(index, (loaded.path / bundle.GOLDEN).read_bytes(), loaded.version)


def files_of(world, folder, seed=0):
    model = world.model(seed)
    vectors = item_vectors(model, world.table, START_MS / 1000)
    index = build_index(vectors)
    queries = np.random.default_rng(seed).normal(size=(5, index.dimension)).astype(np.float32)
    return pack_files(
        folder,
        domain_text=DOMAIN.format(window=world.window),
        model=model,
        vocabulary=world.vocabulary,
        catalogue=world.catalogue,
        vectors=vectors,
        popularity=np.arange(len(world.vocabulary)),
        index=artifact.to_bytes(index),
        golden=golden_bytes(index, queries, 7),
    )


def write(root, files, parent=None, **fields):
    given = {"created_at": CREATED, "code_version": "0.1.0", "metrics": {"ndcg_at_10": 0.25}} | fields
    return write_bundle(root, files=files, parent=parent, **given)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    return files_of(WORLD, folder)


@pytest.fixture
def ref(tmp_path, files):
    return write(tmp_path / "bundles", files)


def fault_of(call, *arguments, **keywords):
    with pytest.raises(BundleError) as refused:
        call(*arguments, **keywords)
    return refused.value.fault


def test_a_bundle_comes_back_as_it_was_written(ref):
    loaded = load_bundle(ref.path, golden=golden_check)
    assert loaded.version == ref.version == ref.path.name
    assert loaded.manifest.metrics == {"ndcg_at_10": 0.25}
    assert loaded.domain == WORLD.domain
    assert loaded.vocabulary == WORLD.vocabulary
    assert loaded.catalogue == WORLD.catalogue
    assert loaded.popularity.tolist() == list(range(31))
    assert not loaded.model.training
    for name, tensor in WORLD.model().state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert list(loaded.vectors.labels) == [head.name for head in WORLD.domain.heads if head.is_item_label]


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
    assert synced[: len(BUNDLE_FILES) + 1] == [*BUNDLE_FILES, MANIFEST]
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
    assert fault_of(verify_bundle, ref.path) is BundleFault.UNEXPECTED_FILE
    (ref.path / "notes.txt").unlink()
    (ref.path / bundle.ITEMS).unlink()
    assert fault_of(verify_bundle, ref.path) is BundleFault.MISSING_FILE
    (ref.path / MANIFEST).unlink()
    assert fault_of(verify_bundle, ref.path) is BundleFault.MISSING_FILE
    assert fault_of(verify_bundle, ref.path.with_name("b0123456789ab")) is BundleFault.MISSING_FILE


def test_a_renamed_bundle_is_refused(ref):
    moved = ref.path.rename(ref.path.with_name("b0123456789ab"))
    assert fault_of(verify_bundle, moved) is BundleFault.MANIFEST


def test_a_bundle_of_another_format_is_refused_with_the_remedy(ref):
    manifest = bundle.read_manifest(ref.path)
    later = msgspec.structs.replace(manifest, format=99)
    (ref.path / MANIFEST).write_bytes(encode_manifest(later))
    with pytest.raises(BundleError, match=r"format 99.*run the code that wrote it"):
        verify_bundle(ref.path)
    with_more = json.loads(encode_manifest(later)) | {"signature": "of a later format"}
    (ref.path / MANIFEST).write_text(json.dumps(with_more))
    assert fault_of(verify_bundle, ref.path) is BundleFault.CODE_VERSION


def test_a_manifest_that_lists_other_files_is_refused(ref):
    manifest = bundle.read_manifest(ref.path)
    fewer = {name: entry for name, entry in manifest.files.items() if name != bundle.INDEX}
    forged = msgspec.structs.replace(manifest, files=fewer, version=content_version(fewer))
    (ref.path / MANIFEST).write_bytes(encode_manifest(forged))
    assert fault_of(verify_bundle, ref.path) is BundleFault.MANIFEST


def changed(files, file, **arrays):
    return {file: save_arrays(load_arrays(files[file]) | arrays)}


def test_a_wrong_shape_is_found_though_the_checksums_are_right(tmp_path, files):
    wrong = [
        changed(files, bundle.POPULARITY, popularity=np.zeros(30, dtype=np.float32)),
        changed(files, bundle.POPULARITY, popularity=np.zeros(31, dtype=np.float64)),
        changed(files, bundle.VECTORS, bias=np.zeros((31, 1), dtype=np.float32)),
        changed(files, bundle.VECTORS, surplus=np.zeros(31, dtype=np.float32)),
        changed(files, bundle.WEIGHTS, item_bias=np.zeros(12, dtype=np.float32)),
        {bundle.WEIGHTS: b"not safetensors"},
        {bundle.MODEL: b'{"width": 32, "num_heads": 2, "num_layers": 2, "intent_width": 8}'},
        {bundle.MODEL: b'{"depth": 3}'},
        {bundle.MODEL: b"[]"},
    ]
    for change in wrong:
        assert fault_of(verify_bundle, write(tmp_path / "wrong", files | change).path) is BundleFault.SHAPE


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
        assert fault_of(verify_bundle, write(tmp_path / "wrong", files | change).path) is BundleFault.NOT_FINITE


def test_domain_and_tables_that_do_not_parse_have_their_own_reasons(tmp_path, files):
    for change, fault in (
        ({bundle.DOMAIN: b"name = 3"}, BundleFault.DOMAIN),
        ({bundle.DOMAIN: b"\xff"}, BundleFault.DOMAIN),
        ({bundle.VOCABULARY: b"no parquet"}, BundleFault.VOCABULARY),
        ({bundle.ITEMS: b""}, BundleFault.VOCABULARY),
    ):
        assert fault_of(verify_bundle, write(tmp_path / "wrong", files | change).path) is fault


def test_vectors_of_other_weights_are_refused(tmp_path, files):
    (tmp_path / "other").mkdir()
    other = files_of(WORLD, tmp_path / "other", seed=9)
    mixed = files | {name: other[name] for name in (bundle.VECTORS, bundle.INDEX, bundle.GOLDEN)}
    assert fault_of(verify_bundle, write(tmp_path / "wrong", mixed).path) is BundleFault.GOLDEN


def test_failed_golden_queries_are_refused(tmp_path, files):
    golden = load_arrays(files[bundle.GOLDEN])
    rows = golden["rows"].copy()
    rows[2, 0], rows[2, 6] = rows[2, 6], rows[2, 0]
    bundle_ = write(tmp_path / "wrong", files | changed(files, bundle.GOLDEN, rows=rows))
    verify_bundle(bundle_.path)
    assert fault_of(verify_bundle, bundle_.path, golden=golden_check) is BundleFault.GOLDEN
    for change in (
        {bundle.GOLDEN: b"nothing"},
        changed(files, bundle.GOLDEN, queries=np.ones((5, 3), dtype=np.float32)),
        changed(files, bundle.GOLDEN, rows=rows[:, :3]),
        {bundle.GOLDEN: save_arrays({"queries": golden["queries"]})},
        {bundle.INDEX: b"no index"},
    ):
        path = write(tmp_path / "wrong", files | change).path
        assert fault_of(verify_bundle, path, golden=golden_check) is BundleFault.SHAPE


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


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    if request.param == "folder":
        return BundleStore(str(tmp_path / "store"), tmp_path / "cache")
    return BundleStore(f"memory://{tmp_path.name}/store", tmp_path / "cache")


def test_a_store_lists_newest_first_and_fetches_what_was_published(store, tmp_path, files, ref):
    assert store.list() == []
    child = write(
        tmp_path / "bundles", files | {bundle.INDEX: b"x"}, parent=ref.version, created_at="2026-04-01T00:00:00Z"
    )
    store.publish(ref)
    store.publish(child)
    store.publish(child)
    assert [manifest.version for manifest in store.list()] == [child.version, ref.version]
    assert [manifest.version for manifest in store.lineage(child.version)] == [child.version, ref.version]
    fetched = store.fetch(ref.version)
    assert fetched.path.parent == tmp_path / "cache" / "bundles"
    verify_bundle(fetched.path, golden_check)
    assert [manifest.version for manifest in store.cached()] == [ref.version]


def test_a_bundle_without_its_manifest_is_not_there_yet(store, files, ref):
    store.publish(ref)
    store._files.rm(f"{store._root}/{ref.version}/{MANIFEST}")
    assert store.list() == []
    assert fault_of(store.fetch, ref.version) is BundleFault.MISSING_FILE
    store.publish(ref)
    assert len(store.list()) == 1


def test_the_manifest_is_published_last(store, ref, monkeypatch):
    moved, real = [], store._files.mv

    def recording(source, target):
        moved.append(target.rsplit("/", 1)[-1])
        real(source, target)

    monkeypatch.setattr(store._files, "mv", recording)
    store.publish(ref)
    assert sorted(moved[:-1]) == sorted(BUNDLE_FILES)
    assert moved[-1] == MANIFEST


def test_a_damaged_bundle_in_the_store_never_reaches_the_cache(store, ref):
    store.publish(ref)
    path = f"{store._root}/{ref.version}"
    intact = store._files.cat_file(f"{path}/{bundle.WEIGHTS}")
    for change, fault in (
        (lambda: store._files.pipe_file(f"{path}/{bundle.WEIGHTS}", intact[:-1] + b"\0"), BundleFault.CHECKSUM),
        (lambda: store._files.rm(f"{path}/{bundle.WEIGHTS}"), BundleFault.MISSING_FILE),
    ):
        change()
        assert fault_of(store.fetch, ref.version) is fault
        store._files.pipe_file(f"{path}/{bundle.WEIGHTS}", intact)
    store._files.pipe_file(f"{path}/extra.bin", b"1")
    assert fault_of(store.fetch, ref.version) is BundleFault.UNEXPECTED_FILE
    assert not list(store.cache.iterdir())
    store._files.rm(f"{path}/extra.bin")
    store.fetch(ref.version)


def test_a_bundle_damaged_in_the_cache_is_fetched_again(store, ref):
    store.publish(ref)
    cached = store.fetch(ref.version)
    (cached.path / bundle.WEIGHTS).write_bytes(b"")
    verify_files(store.fetch(ref.version).path)
    assert store.drop_cached(keep=[ref.version]) == []
    assert store.drop_cached(keep=[]) == [ref.version]
    assert store.cached() == []


def test_what_a_killed_process_had_half_fetched_is_removed_and_what_another_one_fetches_is_not(store, tmp_path, ref):
    store.publish(ref)
    left = store.cache / ".fetching-left"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    other = BundleStore(store.url, tmp_path / "cache")
    with other._fetching() as used:
        store.fetch(ref.version)
        assert used.is_dir()
        assert not left.exists()
    assert [path.name for path in store.cache.iterdir()] == [ref.version]


def test_the_cache_serves_when_the_store_is_gone(tmp_path, ref):
    store = BundleStore(str(ref.path.parent), tmp_path / "cache")
    store.fetch(ref.version)
    ref.path.parent.rename(tmp_path / "gone")
    verify_files(store.fetch(ref.version).path)
    assert fault_of(store.manifest, ref.version) is BundleFault.MISSING_FILE


def test_a_version_from_a_topic_never_becomes_another_path(store):
    for version in ("../../etc", "", "b12", "b0123456789ab/..", "b0123456789ab\n"):
        assert fault_of(store.fetch, version) is BundleFault.MANIFEST


def test_a_store_that_cannot_be_reached_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    store = BundleStore(str(tmp_path / "file" / "store"), tmp_path / "cache")
    assert fault_of(store.manifest, "b0123456789ab") is BundleFault.UNREACHABLE
    with pytest.raises(ConfigError, match="bundle_url"):
        BundleStore("nowhere://x", tmp_path)
