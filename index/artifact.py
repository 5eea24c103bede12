"""Index files: what FAISS holds, as bytes. The vectors are not in here; they stand in the bundle once, for all kinds.

An index read back is checked against the vectors it is said to be of, so that an index of another bundle cannot serve.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np

from index.base import ItemIndex, Vectors
from index.exact import ExactIndex
from index.faiss_index import FaissIndex, IndexKind
from intentrec_core.errors import BundleError, BundleFault

EXACT = "exact"
KINDS = (EXACT, *(kind.value for kind in IndexKind))
#: The file of an exact index: it needs nothing but the vectors.
_MAGIC = b"intentrec-exact\n"
_SAMPLED_ROWS = 64
#: Exact search of a batch takes 0.7 ms a query there on one core, less than flat FAISS, and misses nothing; see bench_index.
_EXACT_UP_TO_ROWS = 100_000


def default_kind(num_rows: int) -> str:
    """The kind that suits a catalogue: exact, or for a very large one inverted lists."""
    return EXACT if num_rows <= _EXACT_UP_TO_ROWS else IndexKind.IVF.value


def build(vectors: Vectors, kind: str = EXACT) -> ExactIndex | FaissIndex:
    """An index of this kind over item vectors f32[V, D].

    Raises: ValueError for a kind that is not known, or vectors that are not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"index kind {kind!r}; allowed: {', '.join(KINDS)}")
    return ExactIndex(vectors) if kind == EXACT else FaissIndex(vectors, kind)


def to_bytes(index: ItemIndex) -> bytes:
    """The content of an index file.

    Raises: TypeError for an index that is none of this package's.
    """
    if isinstance(index, ExactIndex):
        return _MAGIC
    if isinstance(index, FaissIndex):
        return bytes(faiss.serialize_index(index.faiss).tobytes())
    raise TypeError(f"{type(index).__name__} has no index file")


def from_bytes(data: bytes, vectors: Vectors, bundle: str = "") -> ExactIndex | FaissIndex:
    """The inverse of :func:`to_bytes`, over the vectors the index was built of.

    ``bundle`` is named in the error.

    Raises: BundleError (shape) when the file is no index, or not one of these vectors; (not_finite) when these are not.
    Its checksum must have been verified: FAISS trusts what it parses.
    """
    try:
        if data == _MAGIC:
            return ExactIndex(vectors)
        built = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        index = FaissIndex(vectors, _kind(built), built=built)
    except (ValueError, RuntimeError) as error:
        finite = bool(np.isfinite(vectors[1:]).all())
        fault = BundleFault.SHAPE if finite else BundleFault.NOT_FINITE
        raise BundleError(fault, bundle, f"index: {' '.join(str(error).split())[:200]}") from error
    if not index.holds_its_vectors(_SAMPLED_ROWS):
        raise BundleError(BundleFault.SHAPE, bundle, "index: holds other vectors than the bundle; build it anew")
    return index


def save(index: ItemIndex, path: Path) -> None:
    """Writes an index file, to a temporary name first."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(to_bytes(index))
    temporary.replace(path)


def load(path: Path, vectors: Vectors, bundle: str = "") -> ExactIndex | FaissIndex:
    """Reads an index file; see :func:`from_bytes`.

    Raises: BundleError, also (missing_file) when it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(BundleFault.MISSING_FILE, bundle, f"{path.name}: {error.strerror}") from error
    return from_bytes(data, vectors, bundle)


def _kind(built: faiss.Index) -> IndexKind:
    for kind, cls in (
        (IndexKind.FLAT, faiss.IndexFlat),
        (IndexKind.HNSW, faiss.IndexHNSWFlat),
        (IndexKind.IVF, faiss.IndexIVFFlat),
    ):
        if isinstance(built, cls):
            return kind
    raise ValueError(f"a {type(built).__name__} is none of {', '.join(IndexKind)}")
