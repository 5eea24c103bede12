"""Where bundles are kept: a folder, or any fsspec URL (s3://, gs://, memory:// …). The trainer publishes bundles, workers
fetch them.

In the store, the manifest is written last, and a bundle without a manifest does not count: a reader never takes a
partial bundle for a whole one. In the local cache, a bundle is complete and verified when it gets its name, and it is
verified again each time it is fetched.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from filelock import lock_descriptor

from intentrec_core.bundle.format import (
    MANIFEST,
    VERSION,
    BundleRef,
    Manifest,
    decode_manifest,
    place,
    read_manifest,
    verified,
    verify_files,
)
from intentrec_core.errors import BundleError, BundleFault, ConfigError

_CACHE_FOLDER = "bundles"
_PARTIAL = ".part"
_FETCHING = ".fetching-"


class BundleStore:
    """The bundles at ``url``, and the copies of them in ``cache_dir`` on this machine.

    Raises: ConfigError when fsspec does not know the URL's protocol, or lacks the package for it.
    """

    def __init__(self, url: str, cache_dir: Path) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"bundle_url {url}: {error}") from error
        self.url = url
        self.cache = cache_dir.expanduser() / _CACHE_FOLDER

    def list(self) -> Sequence[Manifest]:
        """Manifests of all bundles in the store, newest first. A bundle with a damaged manifest is left out; ``fetch``
        reports what is wrong with it.

        Raises: BundleError (unreachable).
        """
        with self._reaching("*"):
            self._files.invalidate_cache()
            entries = self._files.ls(self._root, detail=False) if self._files.isdir(self._root) else []
        versions = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries]
        found = []
        for version in versions:
            if VERSION.fullmatch(version):
                try:
                    found.append(self.manifest(version))
                except BundleError as error:
                    if error.fault is BundleFault.UNREACHABLE:
                        raise
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.version), reverse=True)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a bundle in the store.

        Raises: BundleError: missing_file when the store has no such bundle, unreachable, manifest, code_version.
        """
        path = self._path(version, MANIFEST)
        with self._reaching(version):
            try:
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError as error:
                is_half = bool(self._files.isdir(self._path(version, "")))
                detail = (
                    f"is half published at {self.url}: its {MANIFEST} is missing, which is written last. Publish it again"
                    if is_half
                    else f"there is no such bundle at {self.url}"
                )
                raise BundleError(BundleFault.MISSING_FILE, version, detail) from error
        manifest = decode_manifest(data, version)
        if manifest.version != version:
            raise BundleError(BundleFault.MANIFEST, version, f"its manifest is that of {manifest.version}")
        return manifest

    def lineage(self, version: str) -> Iterator[Manifest]:
        """This bundle, its parent, and so on, as long as they are in the store: the bundles that a rollback can choose
        from.

        Raises: BundleError for the first bundle. A parent that is missing or damaged ends the iteration.
        """
        manifest = self.manifest(version)
        seen: set[str] = set()
        while True:
            yield manifest
            seen.add(manifest.version)
            if manifest.parent is None or manifest.parent in seen:
                return
            try:
                manifest = self.manifest(manifest.parent)
            except BundleError as error:
                if error.fault is BundleFault.UNREACHABLE:
                    raise
                return

    def fetch(self, version: str) -> BundleRef:
        """The bundle as a verified folder on this machine. It is copied from the store if the cache does not have it, or
        has a damaged copy.

        Pass the result to :func:`intentrec_core.bundle.contents.load_bundle`: then no file is hashed twice.

        Raises: BundleError: unreachable, or what is wrong with the bundle in the store.
        Cost: reads the bundle once if it is cached; otherwise copies it as well.
        """
        cached = self.cache / self._checked(version)
        try:
            return verified(cached)
        except BundleError:
            pass  # not cached, or damaged on this disk: fetch it from the store
        manifest = self.manifest(version)
        self.cache.mkdir(parents=True, exist_ok=True)
        with self._fetching() as temporary:
            for file in (*manifest.files, MANIFEST):
                with self._reaching(version):
                    try:
                        self._files.get_file(self._path(version, file), str(temporary / file))
                    except FileNotFoundError as error:
                        raise BundleError(BundleFault.MISSING_FILE, version, f"{file} is not at {self.url}") from error
            self._refuse_unexpected(version, manifest)
            fetched = verified(temporary)
            return BundleRef(version, place(temporary, cached), fetched.stamps)

    def publish(self, ref: BundleRef) -> Manifest:
        """Copies a bundle from this machine into the store, its manifest last. Does nothing if the store already has it.

        Raises: BundleError: unreachable, or what is wrong with the local bundle.
        """
        manifest = verify_files(ref.path)
        try:
            if self.manifest(ref.version) == manifest:
                return manifest
        except BundleError as error:
            if error.fault is BundleFault.UNREACHABLE:
                raise
        with self._reaching(ref.version):
            self._files.makedirs(self._path(ref.version, ""), exist_ok=True)
            for file in (*manifest.files, MANIFEST):
                # Under a temporary name first: readers of a file system could see a file that is half written.
                target = self._path(ref.version, file)
                partial = f"{target}.{uuid.uuid4().hex}{_PARTIAL}"
                self._files.put_file(str(ref.path / file), partial)
                self._files.mv(partial, target)
        return manifest

    def check_writable(self) -> None:
        """Checks, before any work, that a bundle can be built in the cache and published: writes a small file into both, renames
        it and removes it. Folders that were not there are removed again.

        Raises: BundleError (unreachable) with what refuses.
        """
        cache, _ = fsspec.core.url_to_fs(f"file://{self.cache.absolute()}")
        for where, files, folder in (
            (f"the cache ({self.cache})", cache, str(self.cache.absolute())),
            (self.url, self._files, self._root.rstrip("/")),
        ):
            try:
                _try_to_write(files, folder)
            except (
                Exception
            ) as error:  # stores raise their clients' own types, and NotImplementedError where none can write
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")
                detail = (
                    f"{where} takes no files: {reason}; give it room and permissions, or choose another folder or URL"
                )
                raise BundleError(BundleFault.UNREACHABLE, "*", detail) from error

    def unfinished(self) -> Mapping[str, datetime]:
        """Half published bundles, which no reader takes for whole: their versions, and when each was last written to.

        Its publisher may still be at work, or was killed. Empty where the store does not report times.

        Raises: BundleError (unreachable).
        """
        found = {}
        for version, files in self._files_by_version().items():
            if all(_name(path) != MANIFEST for path in files) and (times := self._times_written(files)):
                found[version] = max(times)
        return found

    def remove_leftovers(self, before: datetime) -> Sequence[str]:
        """Removes what killed publishers left in the store and last wrote to before a time (with a timezone): half published
        bundles, and partial copies of files. Returns what was removed.

        No publisher that is still at work may have begun before that time.

        Raises: BundleError (unreachable).
        """
        removed = []
        for version in [version for version, written in self.unfinished().items() if written < before]:
            with self._reaching(version):
                self._files.rm(self._path(version, ""), recursive=True)
            removed.append(version)
        for version, files in self._files_by_version().items():
            for path in files:
                if path.endswith(_PARTIAL) and any(written < before for written in self._times_written([path])):
                    with self._reaching(version), suppress(FileNotFoundError):  # another publisher removed it
                        self._files.rm_file(path)
                    removed.append(f"{version}/{_name(path)}")
        return removed

    def drop_cached(self, keep: Collection[str]) -> Sequence[str]:
        """Removes all bundles except ``keep`` from this machine's cache, and returns the removed versions. The store is
        not changed.
        """
        dropped = []
        for folder in sorted(self.cache.glob("b*")) if self.cache.is_dir() else []:
            if VERSION.fullmatch(folder.name) and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
                dropped.append(folder.name)
        return dropped

    def cached(self) -> Sequence[Manifest]:
        """Manifests of the bundles in this machine's cache, newest first."""
        found = []
        for folder in self.cache.glob("b*") if self.cache.is_dir() else []:
            if VERSION.fullmatch(folder.name):
                try:
                    found.append(read_manifest(folder))
                except BundleError:
                    continue
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.version), reverse=True)

    @contextmanager
    def _fetching(self) -> Iterator[Path]:
        """A temporary folder to fetch into, removed at the end. Folders left by killed processes are removed at the start;
        otherwise they would accumulate.

        Each folder is locked while it is in use, and a process's locks end with the process.
        """
        with ExitStack() as stack:
            with _locked(
                self.cache
            ):  # else a folder that another process has made, but not locked yet, would be removed as a leftover
                for left in self.cache.glob(f"{_FETCHING}*"):
                    with suppress(OSError), _locked(left, wait=False):  # still locked: in use
                        shutil.rmtree(left, ignore_errors=True)
                temporary = self.cache / f"{_FETCHING}{uuid.uuid4().hex}"
                temporary.mkdir()
                stack.enter_context(_locked(temporary))
                stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            yield temporary

    def _files_by_version(self) -> Mapping[str, Sequence[str]]:
        found = defaultdict(list)
        with self._reaching("*"):
            self._files.invalidate_cache()
            paths = self._files.find(self._root) if self._files.isdir(self._root) else []
        for path in map(str, paths):
            version = path.rsplit("/", 2)[-2]
            if VERSION.fullmatch(version):
                found[version].append(path)
        return found

    def _times_written(self, paths: Sequence[str]) -> Sequence[datetime]:
        """When files were written; without those that are gone, and empty where the store does not report times."""
        found = []
        for path in paths:
            # A file that the publisher has renamed since it was listed is not found, and not every store keeps times.
            with self._reaching("*"), suppress(NotImplementedError, FileNotFoundError):
                written = self._files.modified(path)
                found.append(written if written.tzinfo else written.replace(tzinfo=UTC))
        return found

    def _refuse_unexpected(self, version: str, manifest: Manifest) -> None:
        with self._reaching(version):
            names = [str(entry).rsplit("/", 1)[-1] for entry in self._files.ls(self._path(version, ""), detail=False)]
        for name in sorted(names):
            # A publisher that was killed may have left partial copies. They do no harm: no manifest names them.
            if name and name != MANIFEST and name not in manifest.files and not name.endswith(_PARTIAL):
                raise BundleError(BundleFault.UNEXPECTED_FILE, version, f"{name} is not in the manifest")

    def _path(self, version: str, file: str) -> str:
        return f"{self._root.rstrip('/')}/{self._checked(version)}/{file}".rstrip("/")

    def _checked(self, version: str) -> str:
        # A version may come from a topic: it must not become a path such as ../..
        if not VERSION.fullmatch(version):
            raise BundleError(
                BundleFault.MANIFEST, version[:40], "is not a bundle version, which is b and 12 hex digits"
            )
        return version

    @contextmanager
    def _reaching(self, version: str) -> Iterator[Any]:
        try:
            yield
        except OSError as error:
            detail = f"{self.url}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise BundleError(BundleFault.UNREACHABLE, version, detail) from error


def _try_to_write(files: Any, folder: str) -> None:
    """Does with a small file what publishing does with a bundle's, and leaves nothing behind."""
    files.invalidate_cache()
    absent = []
    parent = folder
    while parent.strip("/") and parent not in absent and not files.exists(parent):
        absent.append(parent)
        parent = files._parent(parent)
    probe = f"{folder}/.probe-{uuid.uuid4().hex}"
    partial = f"{probe}{_PARTIAL}"
    try:
        files.makedirs(folder, exist_ok=True)
        files.pipe_file(partial, b"probe")
        files.mv(partial, probe)
        files.rm_file(probe)
    finally:
        for path in (partial, probe):
            with suppress(Exception):  # it was renamed or removed, or cannot be
                files.rm_file(path)
        for path in absent:
            with suppress(Exception):  # a store without folders, or another publisher uses it
                files.rmdir(path)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a folder. If the file system has no locks, ``wait`` continues without one.

    Raises: OSError without ``wait`` when another process holds the lock, or the file system has no locks.
    """
    # The folder itself is locked, not a file beside it: the lock goes with the folder and with the process.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError) if wait else nullcontext():  # no locks on this file system
            if not lock_descriptor(descriptor, blocking=wait):
                raise BlockingIOError(f"{folder} is locked by another process")
        yield
    finally:
        os.close(descriptor)
