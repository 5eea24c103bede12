"""Index files: the content of a FAISS index, or the plan of a pruned one, as bytes. The vectors are not part of it: a
bundle stores them once, for all kinds of index.

An index that is read back is compared with the bundle's vectors, so that the index of another bundle cannot serve.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from index.base import ItemIndex, Vectors
from index.exact import ExactIndex
from index.faiss_index import FaissIndex, IndexKind
from index.pruned import PrunedIndex
from index.pruning import Plan, make_plan
from intentrec_core.errors import BundleError, BundleFault

EXACT, PRUNED = "exact", "pruned"
KINDS = (EXACT, *(kind.value for kind in IndexKind), PRUNED)
AnyIndex = ExactIndex | FaissIndex | PrunedIndex
#: The whole file of an exact index, which needs only the vectors.
_MAGIC = b"intentrec-exact\n"
#: The start of the file of a pruned index; the plan's arrays and the digest of its vectors follow.
_PLAN_MAGIC = b"intentrec-pruned\n"
_SAMPLED_ROWS = 64
#: The largest size for exact search. At this size, a batch takes 0.7 ms per query on one core, less than flat FAISS,
#: and misses nothing; see bench_index.
_EXACT_UP_TO_ROWS = 100_000


def default_kind(num_rows: int) -> str:
    """The kind that suits a catalogue of this size: exact, or pruned for a very large one."""
    return EXACT if num_rows <= _EXACT_UP_TO_ROWS else PRUNED


def build(vectors: Vectors, kind: str = EXACT, queries: Vectors | None = None) -> AnyIndex:
    """An index of this kind over item vectors f32[V, D].

    ``queries`` f32[N, D] are samples of the queries to expect; only a pruned index needs them
    (:func:`index.pruning.make_plan`).

    Raises: ValueError for an unknown kind, unsuitable vectors, or too few queries.
    """
    if kind not in KINDS:
        raise ValueError(f"index kind {kind!r}; allowed: {', '.join(KINDS)}")
    if kind == PRUNED:
        if queries is None:
            raise ValueError("a pruned index is planned from sample queries: pass some")
        return PrunedIndex(vectors, make_plan(vectors, queries))
    return ExactIndex(vectors) if kind == EXACT else FaissIndex(vectors, kind)


def to_bytes(index: ItemIndex) -> bytes:
    """The content of an index file.

    Raises: TypeError for an index of a class outside this package.
    """
    if isinstance(index, ExactIndex):
        return _MAGIC
    if isinstance(index, PrunedIndex):
        return _PLAN_MAGIC + _plan_bytes(index)
    if isinstance(index, FaissIndex):
        return bytes(faiss.serialize_index(index.faiss).tobytes())
    raise TypeError(f"{type(index).__name__} has no index file")


def from_bytes(data: bytes, vectors: Vectors, bundle: str = "") -> AnyIndex:
    """The inverse of :func:`to_bytes`, over the vectors that the index was built from. ``bundle`` is the name used in
    errors.

    The file's checksum must have been verified: FAISS trusts the bytes that it parses.

    Raises: BundleError (shape) when the file is not an index, or not one over these vectors; (not_finite) when the
    vectors are not finite.
    """
    try:
        if data == _MAGIC:
            return ExactIndex(vectors)
        if data.startswith(_PLAN_MAGIC):
            return _planned(data[len(_PLAN_MAGIC) :], vectors)
        built = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        index = FaissIndex(vectors, _kind(built), built=built)
    except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
        finite = bool(np.isfinite(vectors[1:]).all())
        fault = BundleFault.SHAPE if finite else BundleFault.NOT_FINITE
        raise BundleError(fault, bundle, f"index: {' '.join(str(error).split())[:200]}") from error
    if not index.holds_its_vectors(_SAMPLED_ROWS):
        raise BundleError(
            BundleFault.SHAPE, bundle, "index: it was built from other vectors than the bundle's; rebuild it"
        )
    return index


def load(path: Path, vectors: Vectors, bundle: str = "") -> AnyIndex:
    """Reads an index file; see :func:`from_bytes`.

    Raises: BundleError, also (missing_file) when the file cannot be read.
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
    raise ValueError(f"a {type(built).__name__} is not one of {', '.join(IndexKind)}")


def _plan_bytes(index: PrunedIndex) -> bytes:
    plan = index.plan
    arrays: dict[str, NDArray[Any]] = {
        "rows": plan.rows,
        "basis": plan.basis,
        "figures": np.array([plan.num_candidates, plan.recall], dtype=np.float64),
        "vectors": _digest(index.exact.vectors),
    }
    return save_arrays(arrays)


def _planned(data: bytes, vectors: Vectors) -> PrunedIndex:
    arrays = load_arrays(data)
    num_candidates, recall = arrays["figures"].tolist()
    index = PrunedIndex(vectors, Plan(arrays["rows"], arrays["basis"], int(num_candidates), recall))
    if not np.array_equal(arrays["vectors"], _digest(index.exact.vectors)):
        raise ValueError("the plan was made for other vectors than the bundle's; rebuild it")
    return index


def _digest(vectors: Vectors) -> NDArray[np.uint8]:
    """SHA-256 of checked vectors. It takes half a second for a million items."""
    return np.frombuffer(hashlib.sha256(vectors.data).digest(), dtype=np.uint8)
