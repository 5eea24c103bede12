"""Bundles in a store and in its cache: complete or absent, whatever process is killed meanwhile."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.contents import load_bundle
from intentrec_core.bundle.format import BUNDLE_FILES, MANIFEST, verify_files
from intentrec_core.bundle.store import BundleStore
from intentrec_core.errors import BundleError, BundleFault, ConfigError
from stream.bundles.builder import remove_leftovers
from stream.cli.bundle_store import resolve
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


def test_a_half_bundle_and_none_are_told_apart(store, ref):
    with pytest.raises(BundleError, match=f"there is no such bundle at {store.url}"):
        store.manifest(ref.version)
    store.publish(ref)
    store._files.rm(f"{store._root}/{ref.version}/{MANIFEST}")
    with pytest.raises(BundleError, match=r"half published at .* its manifest.json is missing"):
        store.fetch(ref.version)


def test_what_a_killed_publisher_left_is_removed_once_it_is_old_and_nothing_else(store, tmp_path, files, ref):
    whole = write(tmp_path / "bundles", files | {bundle.INDEX: b"x"})
    began = datetime.now(UTC)
    for published in (ref, whole):
        store.publish(published)
    store._files.rm(f"{store._root}/{ref.version}/{MANIFEST}")
    partial = f"{store._root}/{whole.version}/{bundle.WEIGHTS}.0123.part"
    store._files.pipe_file(partial, b"half")
    assert began <= store.unfinished()[ref.version] <= datetime.now(UTC)
    assert list(store.unfinished()) == [ref.version]
    assert store.remove_leftovers(began - timedelta(seconds=1)) == [], "a publisher may be at work on it"
    removed = store.remove_leftovers(datetime.now(UTC) + timedelta(seconds=1))
    assert removed == [ref.version, f"{whole.version}/{bundle.WEIGHTS}.0123.part"]
    assert store.unfinished() == {}
    assert not store._files.exists(f"{store._root}/{ref.version}")
    assert [manifest.version for manifest in store.list()] == [whole.version]
    verify_files(store.fetch(whole.version).path)


def test_publishing_removes_what_is_a_day_old(tmp_path, ref):
    store = BundleStore(str(tmp_path / "store"), tmp_path / "cache")
    store.publish(ref)
    (tmp_path / "store" / ref.version / MANIFEST).unlink()
    remove_leftovers(store)
    assert ref.version in store.unfinished()
    for path in (tmp_path / "store" / ref.version).iterdir():
        os.utime(path, (path.stat().st_mtime - 100_000,) * 2)
    remove_leftovers(store)
    assert store.unfinished() == {}


@pytest.mark.parametrize("has_bundle", [False, True])
def test_a_store_is_tried_before_the_work_and_nothing_of_it_stays(store, tmp_path, ref, has_bundle):
    if has_bundle:
        store.publish(ref)
    before = [
        store._files.find(tmp_path.name, withdirs=True),
        sorted(tmp_path.rglob("*")),
        store._files.exists(store._root),
    ]
    store.check_writable()
    store._files.invalidate_cache()
    assert [
        store._files.find(tmp_path.name, withdirs=True), sorted(tmp_path.rglob("*")), store._files.exists(store._root)
    ] == before  # fmt: skip


@pytest.mark.parametrize(
    ("url", "cache", "said"),
    [
        ("{}/file/store", "{}/cache", "file/store takes no files: NotADirectoryError"),
        ("{}/store", "{}/file/cache", r"the cache \(.*file/cache/bundles\) takes no files: NotADirectoryError"),
        ("http://127.0.0.1:1/store", "{}/cache", "store takes no files: ClientConnectorError"),
    ],
)
def test_a_store_that_takes_no_files_is_named_with_the_reason(tmp_path, url, cache, said):
    (tmp_path / "file").write_text("")
    store = BundleStore(url.format(tmp_path), Path(cache.format(tmp_path)))
    with pytest.raises(BundleError, match=said) as raised:
        store.check_writable()
    assert raised.value.fault is BundleFault.UNREACHABLE
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_first_characters_of_a_version_are_enough_if_no_other_starts_with_them(store, tmp_path, files, ref):
    with pytest.raises(ConfigError, match="no bundle at"):
        resolve(store, ref.version[:5])
    other = write(tmp_path / "bundles", files | {bundle.INDEX: b"x"}, created_at="2020-01-01T00:00:00Z")
    store.publish(ref)
    store.publish(other)
    length = next(n for n in range(1, 14) if ref.version[:n] != other.version[:n])
    assert resolve(store, ref.version[:length]) == ref.version
    assert resolve(store, "latest") == ref.version
    assert resolve(store, other.version) == other.version
    assert resolve(store, "b" * 13) == "b" * 13, "whole versions are not looked up"
    with pytest.raises(ConfigError, match=r"2 versions start with it: b[0-9a-f]{12}, b[0-9a-f]{12}\. Allowed"):
        resolve(store, "b")
    with pytest.raises(ConfigError, match="no version starts with it"):
        resolve(store, ref.version[:11] + ("0" if ref.version[11] != "0" else "1"))


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
