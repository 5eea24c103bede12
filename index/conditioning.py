"""Intent conditioning: predicted intents influence the ranking, as part of one inner product.

    score(i) = ⟨E, w_i⟩ + b_i + β · Σ_m p_m(label_m(i))  =  ⟨ [E, 1, β·p], [w_i, b_i, labels_i] ⟩

β = 0 is the paper's model. Only heads whose label depends on the item alone take part: the caller passes these heads'
labels and probabilities, in the same order. An item with several labels gets the sum of their probabilities.

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


def query(items: Vectors, probabilities: Sequence[Vectors] = (), beta: float = 0.0) -> Vectors:
    """Queries [E, 1, β·p] for vectors made by :func:`augment` with the same heads in the same order.

    Shapes: f32[N, D], f32[N, L_m] each -> f32[N, D'].
    Raises: ValueError when β is negative or not finite, or the numbers of queries differ.
    """
    if not np.isfinite(beta) or beta < 0.0:
        raise ValueError(f"beta is {beta}; allowed: at least 0")
    if any(len(head) != len(items) for head in probabilities):
        raise ValueError(
            f"{len(items)} queries, but probabilities have shapes {[head.shape for head in probabilities]}; "
            "allowed: one row per query in each"
        )
    ones = np.ones((len(items), 1), dtype=np.float32)
    return np.concatenate([items, ones, *(np.float32(beta) * head for head in probabilities)], axis=1, dtype=np.float32)
