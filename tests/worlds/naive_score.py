"""The score of an item from its definition, item by item and label by label: what every fast path must equal."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import FieldSource
from intentrec_core.engine.engine import Encoded
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.model.model import IntentRec

LEAST = 1e-6


def naive_scores(model: IntentRec, table: ItemTable, encoded: Encoded, row: int = 0, scale: float = 1.0) -> NDArray:
    """Scores of all items after one encoded play; -inf for row 0. Shape: f64[V]."""
    weights, bias = (tensor.detach().double().numpy() for tensor in model.item_weights())
    scores = weights @ encoded.item_NW[row].astype(np.float64) + bias
    betas = model.betas().tolist()
    for head, beta, probabilities in zip(model.domain.heads, betas, encoded.heads, strict=False):
        if head.source is not FieldSource.CATALOGUE:
            assert beta == 0
            continue
        p = probabilities[row].astype(np.float64).tolist()
        logs = [math.log(max(one, LEAST)) for one in p]
        expected = sum(one * log for one, log in zip(p, logs, strict=True))
        for item, labels in enumerate(table.labels(head, 0.0)):
            own = [log for log, has in zip(logs, labels, strict=True) if has]
            if own:
                scores[item] += scale * beta * (sum(own) / len(own) - expected)
    return scores
