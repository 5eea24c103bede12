"""The score of an item from its definition, item by item and label by label: what every fast path must equal."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.domain.spec import FieldSource
from intentrec_core.engine.engine import Encoded
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.model.model import IntentRec
from intentrec_core.successors import Successors

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
    betas = model.weights().betas().tolist()
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


def naive_successors(plays: Sequence[Sequence[int]], last: Sequence[int]) -> dict[int, float]:
    """The shares of what follows the last plays (newest first, 0 for none), of the plays of members (rows, oldest first): a
    play leads to the five after it, each by 0.75 of the one before.
    """
    counts = defaultdict[int, dict[int, float]](lambda: defaultdict(float))
    for own in plays:
        for (j, before), (k, after) in combinations(enumerate(own), 2):
            if k - j <= 5 and before and after:
                counts[before][after] += 0.75 ** (k - j - 1)
    summed = defaultdict[int, float](float)
    for back, row in enumerate(last):
        for to, count in counts[row].items() if row else ():
            summed[to] += 0.75**back * count / (sum(counts[row].values()) + 10)
    return dict(summed)


def naive_popularity(
    given_plays: list[tuple[int, float]], num_rows: int, moment_s: float, refresh_s: int
) -> NDArray[np.float64]:
    """The share of each item in what was played before the moment, decayed by a day. Shape: f64[V]."""
    day = np.array([math.expm1(naive_columns(given_plays, item, moment_s, refresh_s)[1]) for item in range(num_rows)])
    return day / max(float(day.sum()), 1e-9)


def naive_successor_offsets(
    successors: Successors, features: FeatureBuilder, context: bytes, popularity: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """What the last five plays of a context add to the score of every item that follows one of them, and popularity to all that
    are played. Shape: f64[V].
    """
    table, summed = successors.table, np.zeros(successors.table.num_rows)
    played = features.columns([context], [0]).item_row.tolist()
    for back, item in enumerate(reversed(played[-5:])):
        for place in range(table.starts[item], table.starts[item + 1]) if item else ():
            summed[table.rows[place]] += 0.75**back * table.counts[place] / (table.totals[item] + 10)
    if popularity is not None:
        summed = summed + 3 * popularity
    return np.array([successors.weight * math.log(1 + 100 * share) for share in summed])


def naive_own_offsets(
    model: IntentRec, features: FeatureBuilder, context: bytes, encoded: Encoded, row: int = 0
) -> NDArray[np.float64]:
    """What the plays of a context add to the score of every item, after its last play, which is encoded. Shape: f64[V]."""
    own = model.own_items
    assert own is not None
    weight, bias = (tensor.detach().double().numpy() for tensor in own.gate.parameters())
    logs = [math.log(max(float(p), LEAST)) for head in encoded.heads for p in head[row]]
    gate = weight @ np.array([*encoded.item_NW[row].tolist(), *logs]) + bias
    columns = features.columns([context], [0])
    rows, ts_s = columns.item_row.tolist(), columns.ts_s.tolist()
    offsets = np.zeros(model.num_rows)
    for item in set(rows) - {0}:
        newest = max(place for place, played in enumerate(rows) if played == item)
        lag_s = ts_s[-1] - ts_s[newest]
        since = set(rows[newest + 1 :]) - {0}
        pair = [
            1.0,
            math.log1p(rows.count(item)),
            math.log1p(lag_s / 60.0),
            math.log1p(len(since)),
            float(newest == len(rows) - 1),
        ]
        offsets[item] = gate @ [*pair, *_naive_key(model, item, columns.codes[newest])]
    return offsets


def _naive_key(model: IntentRec, row: int, codes: NDArray[np.int64]) -> list[float]:
    """The key of one play, from its item and its codes alone."""
    assert model.own_items is not None
    with torch.no_grad():
        multi = list(model.multi_labels[row].split([f.num_labels for f in model.domain.multi_fields]))
        content = model.fields.content(model.static_codes[row], multi)
        fields = model.fields(model.item.weight[row], content, torch.from_numpy(codes)).double()
        entered = (model.own_items.key.weight.double() @ fields + model.own_items.key.bias.double()).tolist()
    return [max(0.0, x) for x in entered]
