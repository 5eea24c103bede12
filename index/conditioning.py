"""Intent conditioning: predicted intents influence the ranking, as part of one inner product.

    score(i) = ⟨E, w_i⟩ + b_i + Σ_m ⟨s_m, labels_m(i)⟩  =  ⟨ [E, 1, s], [w_i, b_i, labels_i] ⟩

s_m are scores of head m's labels: what a predicted intent adds to an item with that label. The caller passes labels and scores of
the same heads, in the same order.

Shapes: V item rows (row 0 no item), N queries, D model width, L_m labels of head m, D' = D + 1 + Σ L_m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.base import Vectors


def augment(weights: Vectors, bias: Vectors, labels: Sequence[Vectors] = ()) -> Vectors:
    """Item vectors [w, b, labels], to be searched with :func:`query`.

    Row 0 becomes zeros, whatever its bias (the model's is -inf): an index masks this row itself.

    Shapes: f32[V, D], f32[V], f32[V, L_m] each -> f32[V, D'].
    Raises: ValueError when the numbers of rows differ.
    """
    if bias.shape != (len(weights),) or any(len(label) != len(weights) for label in labels):
        raise ValueError(
            f"weights have {len(weights)} rows, bias {bias.shape}, labels {[label.shape for label in labels]}: "
            "allowed: one row per item in each"
        )
    vectors = np.concatenate([weights, bias[:, None], *labels], axis=1, dtype=np.float32)
    vectors[0] = 0.0
    return vectors


def query(items: Vectors, label_scores: Sequence[Vectors] = ()) -> Vectors:
    """Queries [E, 1, s] for vectors made by :func:`augment` with the same heads in the same order.

    Shapes: f32[N, D], f32[N, L_m] each -> f32[N, D'].
    Raises: ValueError when the numbers of queries differ.
    """
    if any(len(scores) != len(items) for scores in label_scores):
        raise ValueError(
            f"{len(items)} queries, but label scores have shapes {[scores.shape for scores in label_scores]}; "
            "allowed: one row per query in each"
        )
    ones = np.ones((len(items), 1), dtype=np.float32)
    return np.concatenate([items, ones, *label_scores], axis=1, dtype=np.float32)
