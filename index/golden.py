"""Golden queries: a few queries with known answers that are stored with an index and repeated before it serves.

They find what checksums cannot: code or a library that gives other answers here than where the index was built.
"""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from index.base import PAD_ROW, ItemIndex, Rows, Vectors
from index.faiss_index import FaissIndex, IndexKind
from index.pruned import PrunedIndex
from index.quantised import QuantisedIndex
from intentrec_core.errors import BundleError, BundleFault

#: Allowed difference of a score, relative to the largest one of its query: other hardware adds products in another
#: order.
_TOLERANCE = 1e-4
#: Share of answers that may differ for an approximate index: rounding can change a walk through a graph at a near tie.
_APPROXIMATE_MISS_RATIO = 0.05


def golden_bytes(index: ItemIndex, queries: Vectors, k: int) -> bytes:
    """The content of a golden file: these queries f32[N, D], with the answers of ``index``."""
    rows, scores = index.search(queries, k)
    return save({"queries": np.ascontiguousarray(queries, dtype=np.float32), "rows": rows, "scores": scores})


def check_golden(index: ItemIndex, data: bytes, bundle: str) -> None:
    """Repeats the golden queries and compares the answers.

    Rows may differ where their scores tie within rounding.

    Raises: BundleError (shape) when the file does not fit the index; (golden) when an answer differs.
    """
    try:
        arrays = load(data)
        queries, rows, scores = arrays["queries"], arrays["rows"], arrays["scores"]
        if rows.shape != scores.shape or rows.ndim != 2 or len(rows) != len(queries) or not rows.size:
            raise ValueError(f"{len(queries)} queries, rows {rows.shape}, scores {scores.shape}")
        got_rows, got_scores = index.search(queries, rows.shape[1])
        own_scores = _scores_of(index, queries, rows)
    except (SafetensorError, KeyError, ValueError, IndexError) as error:
        raise BundleError(BundleFault.SHAPE, bundle, f"golden queries: {error}") from error
    tolerances = _TOLERANCE * np.maximum(1.0, np.abs(np.where(rows > 0, scores, 0.0)).max(axis=1, keepdims=True))
    padding = (rows <= 0) & (got_rows == PAD_ROW)
    with np.errstate(invalid="ignore"):  # padding: -inf less -inf
        ranked = np.abs(got_scores - scores) <= tolerances
        scored = np.abs(own_scores - scores) <= tolerances
    misses = int(np.count_nonzero(~(padding | (ranked & scored))))
    walks = isinstance(index, FaissIndex) and index.kind is not IndexKind.FLAT
    approximate = walks or isinstance(index, PrunedIndex | QuantisedIndex)
    if misses > (_APPROXIMATE_MISS_RATIO * rows.size if approximate else 0):
        raise BundleError(
            BundleFault.GOLDEN, bundle, f"{misses} of {rows.size} golden answers differ from those at the build"
        )


def _scores_of(index: ItemIndex, queries: Vectors, rows: Rows) -> Vectors:
    """The scores that the index now gives these rows, in their places; -inf for padding. Shapes: i64[N, k] -> f32[N,
    k].
    """
    own = np.full(rows.shape, -np.inf, dtype=np.float32)
    for i, expected in enumerate(rows):
        mask = np.zeros(index.num_items + 1, dtype=np.bool_)
        mask[expected[expected > 0]] = True
        found, scores = index.search(queries[i : i + 1], len(expected), allowed=[mask])
        now = dict(zip(found[0].tolist(), scores[0].tolist(), strict=True))
        own[i] = [now.get(row, -np.inf) if row > 0 else -np.inf for row in expected.tolist()]
    return own
