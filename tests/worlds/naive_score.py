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
HOUR_S = 3600.0
DECAYS_S = (HOUR_S, 24 * HOUR_S, 7 * 24 * HOUR_S, 30 * 24 * HOUR_S)


def naive_columns(given_plays: list[tuple[int, float]], row: int, moment_s: float, refresh_s: int) -> list[float]:
    """The columns of one item at one moment, by definition."""
    at_s = math.floor(moment_s / refresh_s) * refresh_s
    before = [ts_s for played, ts_s in given_plays if played == row > 0 and ts_s < at_s]
    if not before:
        return [0.0] * (len(DECAYS_S) + 1)
    sums = [sum(math.exp((ts_s - at_s) / decay_s) for ts_s in before) for decay_s in DECAYS_S]
    return [*map(math.log1p, sums), math.log1p((at_s - min(before)) / (24 * HOUR_S))]


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


def naive_offsets(
    model: IntentRec, encoded: Encoded, given_plays: list[tuple[int, float]], moment_s: float, row: int = 0
) -> NDArray:
    """What counts of plays (row, seconds) add to the score of every item at one moment. Shape: f64[V]."""
    assert model.count_gate is not None
    weight, bias = (tensor.detach().double().numpy() for tensor in model.count_gate.parameters())
    gate = weight @ encoded.item_NW[row].astype(np.float64) + bias
    refresh_s = model.config.count_refresh_s
    return np.array([gate @ naive_columns(given_plays, item, moment_s, refresh_s) for item in range(model.num_rows)])
