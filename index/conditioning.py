"""Intent conditioning: predicted intents influence the ranking, as part of one inner product.

    score(i) = ⟨E, w_i⟩ + b_i + Σ_m β_m · ⟨s_m, labels_m(i)⟩  =  ⟨ [E, 1, β·s], [w_i, b_i, labels_i] ⟩

s are the label scores of :mod:`intentrec_core.model.intent_score`, where this score is defined and learnt. The caller passes
labels and probabilities of the same heads, in the same order.

Shapes: V item rows (row 0 no item), N queries, D model width, L_m labels of head m, D' = D + 1 + Σ L_m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.base import Vectors
from intentrec_core.model.intent_score import label_scores


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


def query(items: Vectors, probabilities: Sequence[Vectors] = (), betas: Sequence[float] | Vectors = ()) -> Vectors:
    """Queries [E, 1, β·s] for vectors made by :func:`augment` with the same heads in the same order.

    Shapes: f32[N, D], f32[N, L_m] each, one β a head -> f32[N, D'].
    Raises: ValueError when there is not one finite β per head, or the numbers of queries differ.
    """
    if len(betas) != len(probabilities) or not np.isfinite(betas).all():
        raise ValueError(f"betas are {list(betas)} for {len(probabilities)} heads; allowed: one finite number per head")
    if any(len(head) != len(items) for head in probabilities):
        raise ValueError(
            f"{len(items)} queries, but probabilities have shapes {[head.shape for head in probabilities]}; "
            "allowed: one row per query in each"
        )
    ones = np.ones((len(items), 1), dtype=np.float32)
    scores = [np.float32(beta) * label_scores(head, np.log) for beta, head in zip(betas, probabilities, strict=True)]
    return np.concatenate([items, ones, *scores], axis=1, dtype=np.float32)
