"""Bundles in a store and in its cache: complete or absent, whatever process is killed meanwhile."""

from __future__ import annotations

import pytest

from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.contents import load_bundle
from intentrec_core.bundle.format import BUNDLE_FILES, MANIFEST, verify_files
from intentrec_core.bundle.store import BundleStore
from intentrec_core.errors import BundleFault, ConfigError
from tests.worlds.bundle_files import WORLD, fault_of, files_of, golden_check, write


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    return files_of(WORLD, folder)


@pytest.fixture
def ref(tmp_path, files):
    return write(tmp_path / "bundles", files)


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
    load_bundle(fetched.path, golden=golden_check)
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
