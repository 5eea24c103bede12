"""Kinds of index, and their files: what FAISS holds, or the plan of a pruned index, as bytes.

    auto       one of FAISS's, by the number of items: flat or pq-refine
    flat       FAISS: all vectors; the same answers as exact
    hnsw, ivf  FAISS: a graph; inverted lists
    pq-refine  FAISS: 4-bit codes, then exact scores
    exact      our kernel: all vectors
    pruned     our kernel: the items and directions that matter, then exact scores

Exact vectors are not part of our own files: a bundle stores them once, for all kinds of index. Files of plans and codes hold a
digest of them instead. Files of flat, hnsw and ivf are FAISS's own, with the vectors in them.

An index that is read back is compared with the bundle's vectors, all of them, so that the index of another bundle cannot serve.
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

from index.base import ItemIndex, Vectors, checked_vectors
from index.exact import ExactIndex
from index.faiss_index import FaissIndex, IndexKind
from index.pruned import PrunedIndex
from index.pruning import MIN_QUERIES, PLANNED_K, Plan, make_plan
from index.quantised import MIN_ITEMS, Quantisation, QuantisedIndex, quantise
from intentrec_core.errors import BundleError, BundleFault

AUTO, EXACT, PRUNED, PQ_REFINE = "auto", "exact", "pruned", "pq-refine"
KINDS = (*(kind.value for kind in IndexKind), PQ_REFINE, EXACT, PRUNED)
#: What can be asked for.
CHOICES = (AUTO, *KINDS)
AnyIndex = ExactIndex | FaissIndex | QuantisedIndex | PrunedIndex
#: The whole file of an exact index, which needs only the vectors.
_MAGIC = b"intentrec-exact\n"
#: The start of the file of a pruned index; the plan's arrays and the digest of its vectors follow.
_PLAN_MAGIC = b"intentrec-pruned\n"
#: The start of the file of a product-quantised index; its arrays, FAISS's bytes and the digest of its vectors follow.
_CODES_MAGIC = b"intentrec-pq\n"
#: The name of the digest in both.
_DIGEST = "vectors"
_OTHER_VECTORS = "it was made for other vectors than the bundle's; train a new bundle"
#: From this many items on, codes can be made, and cost less than all vectors; decision 86.
PQ_FROM_ITEMS = MIN_ITEMS
#: Codes that find a smaller share of the exact best ten are not chosen by ``auto``.
_AUTO_RECALL = 0.99


def needs_queries(kind: str, num_rows: int) -> bool:
    """Whether :func:`build` makes use of sample queries."""
    return kind in (PQ_REFINE, PRUNED) or (kind == AUTO and num_rows > PQ_FROM_ITEMS)


def fewest(kind: str) -> tuple[int, int]:
    """The fewest items and the fewest sample queries that a kind can be built from."""
    if kind == PQ_REFINE:
        return MIN_ITEMS, MIN_QUERIES
    return (PLANNED_K + 1, MIN_QUERIES) if kind == PRUNED else (0, 0)


def described(kind: str) -> str:
    """A choice in words, for a bundle's manifest."""
    if kind != AUTO:
        return kind
    return f"auto: {PQ_REFINE} from {PQ_FROM_ITEMS} items and {MIN_QUERIES} members on, else {IndexKind.FLAT}"


def build(vectors: Vectors, kind: str = AUTO, queries: Vectors | None = None) -> AnyIndex:
    """An index over item vectors f32[V, D], of one of :data:`CHOICES`.

    ``queries`` f32[N, D] are samples of the queries to expect; only product quantisation and pruning need them. ``auto`` takes
    flat for few items, for fewer than :data:`index.pruning.MIN_QUERIES` samples, and where codes do not find 0.99 of the exact
    best ten.

    Raises: ValueError for an unknown kind, unsuitable vectors, or too few queries or items for the kind asked for.
    """
    if kind not in CHOICES:
        raise ValueError(f"index kind {kind!r}; allowed: {', '.join(CHOICES)}")
    if kind == AUTO:
        return _auto(vectors, queries)
    if kind in (PQ_REFINE, PRUNED):
        if queries is None:
            raise ValueError(f"a {kind} index is planned from sample queries: pass some")
        checked = checked_vectors(vectors)
        if kind == PQ_REFINE:
            return QuantisedIndex(checked, quantise(checked, queries))
        return PrunedIndex(checked, make_plan(checked, queries))
    return ExactIndex(vectors) if kind == EXACT else FaissIndex(vectors, kind)


def _auto(vectors: Vectors, queries: Vectors | None) -> AnyIndex:
    if queries is not None and len(queries) >= MIN_QUERIES and needs_queries(AUTO, len(vectors)):
        checked = checked_vectors(vectors)
        quantisation = quantise(checked, queries)
        if quantisation.recall >= _AUTO_RECALL:
            return QuantisedIndex(checked, quantisation)
    return FaissIndex(vectors, IndexKind.FLAT)


def kind_of(index: ItemIndex) -> str:
    """The kind of an index of this package."""
    if isinstance(index, FaissIndex):
        return index.kind.value
    kinds: dict[type[ItemIndex], str] = {ExactIndex: EXACT, QuantisedIndex: PQ_REFINE, PrunedIndex: PRUNED}
    return kinds[type(index)]


def to_bytes(index: ItemIndex) -> bytes:
    """The content of an index file.

    Raises: TypeError for an index of a class outside this package.
    """
    if isinstance(index, ExactIndex):
        return _MAGIC
    if isinstance(index, PrunedIndex):
        return _PLAN_MAGIC + _plan_bytes(index)
    if isinstance(index, QuantisedIndex):
        return _CODES_MAGIC + _codes_bytes(index)
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
        if data.startswith(_CODES_MAGIC):
            return _quantised(data[len(_CODES_MAGIC) :], vectors)
        built = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        index = FaissIndex(vectors, _kind(built), built=built)
    except (ValueError, RuntimeError, KeyError, SafetensorError) as error:
        finite = bool(np.isfinite(vectors[1:]).all())
        fault = BundleFault.SHAPE if finite else BundleFault.NOT_FINITE
        raise BundleError(fault, bundle, f"index: {' '.join(str(error).split())[:200]}") from error
    if not index.holds_its_vectors():
        raise BundleError(BundleFault.SHAPE, bundle, f"index: {_OTHER_VECTORS}")
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
        _DIGEST: _digest(index.exact.vectors),
    }
    return save_arrays(arrays)


def _planned(data: bytes, vectors: Vectors) -> PrunedIndex:
    arrays = load_arrays(data)
    num_candidates, recall = arrays["figures"].tolist()
    index = PrunedIndex(vectors, Plan(arrays["rows"], arrays["basis"], int(num_candidates), recall))
    _check_digest(arrays, index)
    return index


def _codes_bytes(index: QuantisedIndex) -> bytes:
    found = index.quantisation
    arrays: dict[str, NDArray[Any]] = {
        "rows": found.rows,
        "basis": found.basis,
        "codes": faiss.serialize_index(found.codes),
        "figures": np.array([*found.num_candidates, found.recall], dtype=np.float64),
        _DIGEST: _digest(index.exact.vectors),
    }
    return save_arrays(arrays)


def _quantised(data: bytes, vectors: Vectors) -> QuantisedIndex:
    arrays = load_arrays(data)
    few, many, recall = arrays["figures"].tolist()
    codes = faiss.deserialize_index(arrays["codes"])
    if not isinstance(codes, faiss.IndexPQFastScan):
        raise ValueError(f"the codes are a {type(codes).__name__}; allowed: IndexPQFastScan")
    index = QuantisedIndex(vectors, Quantisation(arrays["rows"], arrays["basis"], codes, (int(few), int(many)), recall))
    _check_digest(arrays, index)
    return index


def _check_digest(arrays: dict[str, NDArray[Any]], index: PrunedIndex | QuantisedIndex) -> None:
    if _DIGEST not in arrays:
        raise ValueError("it has no digest of its vectors, so that of another bundle could serve; train a new bundle")
    if not np.array_equal(arrays[_DIGEST], _digest(index.exact.vectors)):
        raise ValueError(_OTHER_VECTORS)


def _digest(vectors: Vectors) -> NDArray[np.uint8]:
    """SHA-256 of checked vectors. It takes half a second for a million items."""
    return np.frombuffer(hashlib.sha256(vectors.data).digest(), dtype=np.uint8)
