"""The format of a bundle: one immutable folder, named by its content, that appears whole or not at all.

    <root>/b3f1c09a7e52d/
        weights.safetensors model.json        the encoder
        domain.toml                           what fields and intents mean
        vocabulary.parquet items.parquet      item id ↔ row, titles and attributes
        vectors.safetensors index.faiss       what is searched
        popularity.safetensors                plays of each row in the last week
        successors.safetensors                what usually follows each item
        golden.safetensors                    queries with known answers
        profile.json                          what plays and catalogue said to each field and filter
        manifest.json                         SHA-256 of each file, parent, metrics, format

This module knows names, files and checksums. :mod:`intentrec_core.bundle.contents` knows what the files mean, and
:mod:`intentrec_core.bundle.store` where bundles are kept. Nothing here reads a clock.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from intentrec_core.durable_files import rename_durably
from intentrec_core.errors import BundleError, BundleFault

#: Incremented when the format changes so that older code would misread a bundle. Code reads its own format only.
BUNDLE_FORMAT = 1

WEIGHTS, MODEL, DOMAIN = "weights.safetensors", "model.json", "domain.toml"
VOCABULARY, ITEMS = "vocabulary.parquet", "items.parquet"
VECTORS, INDEX = "vectors.safetensors", "index.faiss"
POPULARITY, GOLDEN, PROFILE = "popularity.safetensors", "golden.safetensors", "profile.json"
SUCCESSORS = "successors.safetensors"
BUNDLE_FILES = (WEIGHTS, MODEL, DOMAIN, VOCABULARY, ITEMS, VECTORS, INDEX, POPULARITY, GOLDEN, PROFILE)
#: Only of models with successors. Bundles that were written before them lack it, and serve.
OPTIONAL_FILES = (SUCCESSORS,)
#: Written into every bundle now; bundles that were written before lack them, and serve.
_LATER_FILES = {PROFILE}
MANIFEST = "manifest.json"

#: The pattern of a version. A version comes from a topic and becomes part of a path, so it is checked before it is
#: joined to one.
VERSION = re.compile(r"b[0-9a-f]{12}")


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hash and size of one file as it was written."""

    sha256: str
    num_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle's description of itself. ``checksum`` covers all other fields, so that no byte of a bundle is unprotected.

    Units: ``created_at`` ISO 8601. ``metrics`` are the results of the gate. ``facts`` are further values for people to
    read.
    """

    format: int
    version: str
    parent: str | None
    created_at: str
    code_version: str
    metrics: dict[str, float]
    facts: dict[str, str | int | float]
    files: dict[str, FileEntry]
    checksum: str = ""


class FileStamp(NamedTuple):
    """A file's identity according to the file system. Any write to the file, or another file in its place, changes at
    least one of these values.
    """

    inode: int
    num_bytes: int
    modified_ns: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle on this machine.

    ``stamps``: of each file, by name, from when the file was last hashed and found intact; None when no hashing has
    happened. :func:`verify_again` uses them to hash only the files that have changed since.
    """

    version: str
    path: Path
    stamps: Mapping[str, FileStamp] | None = field(default=None, compare=False, repr=False)


def write_bundle(
    root: Path,
    *,
    files: Mapping[str, bytes | Path],
    parent: str | None,
    created_at: str,
    code_version: str,
    metrics: Mapping[str, float] | None = None,
    facts: Mapping[str, str | int | float] | None = None,
) -> BundleRef:
    """Writes a bundle under ``root``: into a folder with a temporary name, which is synced and then renamed. A reader sees
    the whole bundle or none.

    The version depends on the files alone. If the bundle exists already it is kept, unless its files are damaged: then
    it is replaced.

    Raises: ValueError when the files are not exactly :data:`BUNDLE_FILES`, with or without :data:`OPTIONAL_FILES`; OSError when a
    write fails. In both cases nothing is left on disk.
    """
    missing, extra = sorted(set(BUNDLE_FILES) - set(files)), sorted(set(files) - {*BUNDLE_FILES, *OPTIONAL_FILES})
    if missing or extra:
        raise ValueError(f"a bundle has exactly the files {', '.join(BUNDLE_FILES)}; missing {missing}, extra {extra}")
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".writing-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        for name, content in files.items():
            write_file(temporary / name, content)
        entries = {name: file_entry(temporary / name) for name in files}
        manifest = Manifest(
            format=BUNDLE_FORMAT,
            version=content_version(entries),
            parent=parent,
            created_at=created_at,
            code_version=code_version,
            metrics=dict(metrics or {}),
            facts=dict(facts or {}),
            files=entries,
        )
        (temporary / MANIFEST).write_bytes(encode_manifest(manifest))
        return BundleRef(manifest.version, place(temporary, root / manifest.version))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def place(temporary: Path, path: Path) -> Path:
    """Renames a complete folder to its final name, durably. If an intact bundle has that name already, it is kept."""
    if path.exists():
        try:
            verify_files(path)
        except BundleError:
            damaged = path.with_name(f".damaged-{uuid.uuid4().hex}")
            path.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        else:
            return path
    try:
        rename_durably(temporary, path)
    except OSError:
        if not path.exists():
            raise
        verify_files(path)  # another process has just placed the same content
    return path


def verify_files(path: Path) -> Manifest:
    """Checks the folder's name, the manifest and every byte of the files. It does not parse the files.

    Raises: BundleError: missing_file, unexpected_file, manifest, code_version, checksum.
    Cost: reads the bundle once.
    """
    return _verified(path, {})[0]


def verified(path: Path) -> BundleRef:
    """Checks a bundle as :func:`verify_files` does, and returns it with the stamps of its files.

    Raises: BundleError as :func:`verify_files`.
    Cost: reads the bundle once.
    """
    manifest, stamps = _verified(path, {})
    return BundleRef(manifest.version, path, stamps)


def verify_again(ref: BundleRef) -> Manifest:
    """Checks a bundle as :func:`verify_files` does, but hashes only files whose stamp differs from ``ref.stamps``.

    This is the last check before a bundle serves: a file that was changed after it was fetched is hashed again and
    refused. A file system stamps times in steps of some milliseconds. A change that keeps the size would go unnoticed
    only in the same step as the file's last write, and fetching hashes and syncs all files after that write.

    Raises: BundleError as :func:`verify_files`.
    Cost: one system call per file if nothing changed; reads the bundle once if ``ref`` has no stamps.
    """
    return _verified(ref.path, ref.stamps or {})[0]


def _verified(path: Path, known: Mapping[str, FileStamp]) -> tuple[Manifest, dict[str, FileStamp]]:
    """The manifest, and the stamp that each file had just before it was hashed. A file whose stamp is in ``known`` is not
    hashed.
    """
    name = path.name
    manifest = read_manifest(path)
    if VERSION.fullmatch(name) and name != manifest.version:
        raise BundleError(
            BundleFault.MANIFEST, name, f"its manifest is that of {manifest.version}: the folder was renamed"
        )
    for entry in sorted(path.iterdir()):
        if entry.name != MANIFEST and entry.name not in manifest.files:
            raise BundleError(BundleFault.UNEXPECTED_FILE, manifest.version, f"{entry.name} is not in the manifest")
    stamps: dict[str, FileStamp] = {}
    for file, expected in manifest.files.items():
        try:
            stamps[file] = _stamp(path / file)
            if stamps[file] == known.get(file):
                continue
            found = file_entry(path / file)
        except FileNotFoundError as error:
            raise BundleError(BundleFault.MISSING_FILE, manifest.version, file) from error
        except OSError as error:
            raise BundleError(BundleFault.CHECKSUM, manifest.version, f"{file} cannot be read: {error}") from error
        if found != expected:
            detail = f"{file} has {found.num_bytes} bytes and SHA-256 {found.sha256[:12]}…, "
            detail += f"must have {expected.num_bytes} and {expected.sha256[:12]}…"
            raise BundleError(BundleFault.CHECKSUM, manifest.version, detail)
    return manifest, stamps


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle in a folder, checked against its own checksum.

    Raises: BundleError: missing_file, manifest, code_version.
    """
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(BundleFault.MISSING_FILE, path.name, MANIFEST) from error
    return decode_manifest(data, path.name)


def decode_manifest(data: bytes, bundle: str) -> Manifest:
    """Decodes and checks a manifest. ``bundle`` is the name used in error messages.

    Raises: BundleError: manifest when any byte differs from what was written; code_version when the format is not this
    code's.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = _format_of(data)
        if found not in (None, BUNDLE_FORMAT):
            raise _other_format(bundle, found) from error
        raise BundleError(BundleFault.MANIFEST, bundle, f"{MANIFEST}: {error}") from error
    if manifest.format != BUNDLE_FORMAT:
        raise _other_format(bundle, manifest.format)
    if encode_manifest(manifest) != data:
        raise BundleError(BundleFault.MANIFEST, bundle, f"{MANIFEST} was changed after it was written")
    if (set(manifest.files) | _LATER_FILES) - set(OPTIONAL_FILES) != set(BUNDLE_FILES):
        raise BundleError(BundleFault.MANIFEST, bundle, f"it lists {', '.join(sorted(manifest.files))}")
    if content_version(manifest.files) != manifest.version:
        raise BundleError(BundleFault.MANIFEST, bundle, f"its file hashes do not give version {manifest.version}")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The only byte sequence that is accepted for this manifest: indented JSON with its own checksum."""
    plain = msgspec.json.encode(msgspec.structs.replace(manifest, checksum=""), order="deterministic")
    sealed = msgspec.structs.replace(manifest, checksum=hashlib.sha256(plain).hexdigest())
    return msgspec.json.format(msgspec.json.encode(sealed, order="deterministic"), indent=2) + b"\n"


def content_version(files: Mapping[str, FileEntry]) -> str:
    """The version of this content: "b" and 12 hex digits of a hash over names and hashes of the files."""
    lines = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(files.items()))
    return "b" + hashlib.sha256(lines.encode()).hexdigest()[:12]


def write_file(path: Path, content: bytes | Path) -> None:
    """Writes one file of a bundle: bytes, or a copy of another file. :func:`place` makes it durable."""
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def file_entry(path: Path) -> FileEntry:
    """What a manifest says of a file: its hash and its size. Reads the file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(digest.hexdigest(), file.tell())


def _stamp(path: Path) -> FileStamp:
    found = path.stat()
    return FileStamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _format_of(data: bytes) -> int | None:
    class OnlyFormat(msgspec.Struct):
        format: int

    try:
        return msgspec.json.decode(data, type=OnlyFormat).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _other_format(bundle: str, found: int | None) -> BundleError:
    detail = (
        f"bundle format {found}, this code reads {BUNDLE_FORMAT}: run the code that wrote it, or train a new bundle"
    )
    return BundleError(BundleFault.CODE_VERSION, bundle, detail)
