"""Bundles: one immutable folder, named by its content, that appears whole or not at all.

    <root>/b3f1c09a7e52d/
        weights.safetensors model.json        the encoder
        domain.toml                           what fields and intents mean
        vocabulary.parquet items.parquet      item id ↔ row, titles and attributes
        vectors.safetensors index.faiss       what is searched
        popularity.safetensors                plays of each row in the last week
        golden.safetensors                    queries with known answers
        manifest.json                         SHA-256 of each of them, parent, metrics, format

This module knows files, names and checksums. What the files mean is :mod:`intentrec_core.bundle.contents`; where bundles
are kept is :mod:`intentrec_core.bundle.store`. Nothing here looks at a clock.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from intentrec_core.durable_files import rename_durably
from intentrec_core.errors import BundleError, BundleFault

#: Raised when code of an earlier format would misread a bundle; code reads its own format only.
BUNDLE_FORMAT = 1

WEIGHTS, MODEL, DOMAIN = "weights.safetensors", "model.json", "domain.toml"
VOCABULARY, ITEMS = "vocabulary.parquet", "items.parquet"
VECTORS, INDEX = "vectors.safetensors", "index.faiss"
POPULARITY, GOLDEN = "popularity.safetensors", "golden.safetensors"
BUNDLE_FILES = (WEIGHTS, MODEL, DOMAIN, VOCABULARY, ITEMS, VECTORS, INDEX, POPULARITY, GOLDEN)
MANIFEST = "manifest.json"

#: What a version looks like. It comes from a topic and becomes a path, so nothing else is ever joined to one.
VERSION = re.compile(r"b[0-9a-f]{12}")


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file as it was written."""

    sha256: str
    num_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle says of itself. ``checksum`` covers all of the rest, so that no byte of a bundle is unguarded.

    Units: ``created_at`` ISO 8601. ``metrics`` are figures of the gate; ``facts`` whatever else people want to see.
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


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle on this machine."""

    version: str
    path: Path


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
    """Writes a bundle under ``root``: to a temporary name, synced to disk, then renamed. A reader sees it whole or not.

    The version is a function of the files alone; a bundle that is there already is kept as it is, unless its files are
    damaged: then it is replaced.

    Raises: ValueError when the files are not exactly :data:`BUNDLE_FILES`; OSError when the disk refuses (nothing stays
    behind but a temporary folder of this call, which is removed).
    """
    if set(files) != set(BUNDLE_FILES):
        missing, extra = sorted(set(BUNDLE_FILES) - set(files)), sorted(set(files) - set(BUNDLE_FILES))
        raise ValueError(f"a bundle has exactly the files {', '.join(BUNDLE_FILES)}; missing {missing}, extra {extra}")
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".writing-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        for name in BUNDLE_FILES:
            _write(temporary / name, files[name])
        entries = {name: _entry(temporary / name) for name in BUNDLE_FILES}
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
    """Renames a complete folder to its final name, durably. An intact bundle there already is kept."""
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
        verify_files(path)  # another process placed the same content in this moment
    return path


def verify_files(path: Path) -> Manifest:
    """Checks name, manifest and every byte of the files; what they mean is not looked at.

    Raises: BundleError: missing_file, unexpected_file, manifest, code_version, checksum.
    Cost: reads the bundle once.
    """
    name = path.name
    manifest = read_manifest(path)
    if VERSION.fullmatch(name) and name != manifest.version:
        raise BundleError(BundleFault.MANIFEST, name, f"its manifest is of {manifest.version}: the folder was renamed")
    for entry in sorted(path.iterdir()):
        if entry.name != MANIFEST and entry.name not in manifest.files:
            raise BundleError(BundleFault.UNEXPECTED_FILE, manifest.version, f"{entry.name} is not in the manifest")
    for file, expected in manifest.files.items():
        try:
            found = _entry(path / file)
        except FileNotFoundError as error:
            raise BundleError(BundleFault.MISSING_FILE, manifest.version, file) from error
        except OSError as error:
            raise BundleError(BundleFault.CHECKSUM, manifest.version, f"{file} cannot be read: {error}") from error
        if found != expected:
            detail = f"{file} has {found.num_bytes} bytes of SHA-256 {found.sha256[:12]}…, "
            detail += f"written were {expected.num_bytes} of {expected.sha256[:12]}…"
            raise BundleError(BundleFault.CHECKSUM, manifest.version, detail)
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle in a folder, checked in itself.

    Raises: BundleError: missing_file, manifest, code_version.
    """
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(BundleFault.MISSING_FILE, path.name, MANIFEST) from error
    return decode_manifest(data, path.name)


def decode_manifest(data: bytes, bundle: str) -> Manifest:
    """A manifest from its bytes; ``bundle`` is what errors call it.

    Raises: BundleError: manifest when a byte is not as it was written, code_version when the format is another one.
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
    if set(manifest.files) != set(BUNDLE_FILES):
        raise BundleError(BundleFault.MANIFEST, bundle, f"it lists {', '.join(sorted(manifest.files))}")
    if content_version(manifest.files) != manifest.version:
        raise BundleError(BundleFault.MANIFEST, bundle, f"its files are not those of version {manifest.version}")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The only bytes a manifest may have: indented JSON with its own checksum."""
    plain = msgspec.json.encode(msgspec.structs.replace(manifest, checksum=""), order="deterministic")
    sealed = msgspec.structs.replace(manifest, checksum=hashlib.sha256(plain).hexdigest())
    return msgspec.json.format(msgspec.json.encode(sealed, order="deterministic"), indent=2) + b"\n"


def content_version(files: Mapping[str, FileEntry]) -> str:
    """The name of this content: "b" and 12 hex digits over the files' names and hashes."""
    lines = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(files.items()))
    return "b" + hashlib.sha256(lines.encode()).hexdigest()[:12]


def _write(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(digest.hexdigest(), file.tell())


def _format_of(data: bytes) -> int | None:
    class OnlyFormat(msgspec.Struct):
        format: int

    try:
        return msgspec.json.decode(data, type=OnlyFormat).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _other_format(bundle: str, found: int | None) -> BundleError:
    detail = f"bundle format {found}, this code reads {BUNDLE_FORMAT}: run the code that wrote it, or train anew"
    return BundleError(BundleFault.CODE_VERSION, bundle, detail)
