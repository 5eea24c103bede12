"""Writes metrics.json: one small set of scores, and what ranx, RecTools and scikit-learn make of it.

It needs none of IntentRec's packages, and IntentRec needs none of its. Run it in a venv of its own, after

    pip install ranx==0.3.21 rectools==0.19.0 scikit-learn

    python tests/golden/make_metrics.py tests/golden/metrics.json

Script version 1. The file names the versions that it was made with.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
import ranx
from rectools import Columns
from rectools.metrics import MRR, AvgRecPopularity, CatalogCoverage, HitRate, IntraListDiversity
from rectools.metrics.distances import PairwiseDistanceCalculator
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics.pairwise import cosine_distances

VERSION = 1
NUM_TARGETS, NUM_ITEMS, NUM_ATTRIBUTES, NUM_LABELS = 40, 60, 7, 5


class Cosine(PairwiseDistanceCalculator):
    """1 − cosine of two items' attributes."""

    def __init__(self, attributes: np.ndarray) -> None:
        self.distances = cosine_distances(attributes)

    def _get_distances_for_item_pairs(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return self.distances[one, other]

    def __getitem__(self, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return self.distances[np.asarray(pairs[0]), np.asarray(pairs[1])]


def main(path: str) -> None:
    """See the module. Item 0 is no item here: row 0 is IntentRec's unknown item."""
    random = np.random.default_rng(7)
    scores = random.permuted(np.tile(np.linspace(-3, 3, NUM_ITEMS + 1), (NUM_TARGETS, 1)), axis=1).round(6)
    truth = random.integers(1, NUM_ITEMS + 1, NUM_TARGETS)
    # Half of the targets stand near the top, at one rank after another; no score is equal to another, since each library has a
    # rule of its own for those.
    for i in range(0, NUM_TARGETS, 2):
        scores[i, truth[i]] = 3.05 - 0.06 * i
    attributes = (random.random((NUM_ITEMS + 1, NUM_ATTRIBUTES)) < 0.4).astype(float)
    attributes[:, 0] = 1.0
    plays = random.integers(1, 50, NUM_ITEMS + 1)
    qrels = ranx.Qrels({f"q{i}": {f"i{row}": 1} for i, row in enumerate(truth)})
    run = ranx.Run(
        {f"q{i}": {f"i{row}": float(scores[i, row]) for row in range(1, NUM_ITEMS + 1)} for i in range(NUM_TARGETS)}
    )
    names = [f"{metric}@{k}" for metric in ("hit_rate", "ndcg") for k in (5, 10, 20)] + ["mrr"]
    by_ranx = {name: float(value) for name, value in ranx.evaluate(qrels, run, names).items()}
    order = 1 + np.argsort(-scores[:, 1:], axis=1)[:, :10]
    lists = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(NUM_TARGETS), 10),
            Columns.Item: order.ravel(),
            Columns.Rank: np.tile(np.arange(1, 11), NUM_TARGETS),
        }
    )
    wanted = pd.DataFrame({Columns.User: np.arange(NUM_TARGETS), Columns.Item: truth})
    before = pd.DataFrame({Columns.User: 0, Columns.Item: np.repeat(np.arange(1, NUM_ITEMS + 1), plays[1:])})
    by_rectools = {
        "hr@10": HitRate(10).calc(lists, wanted),
        "mrr@10": MRR(10).calc(lists, wanted),
        "coverage@10": CatalogCoverage(10, normalize=True).calc(lists, catalog=np.arange(1, NUM_ITEMS + 1)),
        "diversity@10": IntraListDiversity(10, Cosine(attributes)).calc(lists),
        "plays@10": AvgRecPopularity(10).calc(lists, before),
    }
    observed, predicted = random.integers(0, NUM_LABELS, 200), random.integers(0, NUM_LABELS, 200)
    predicted = np.where(random.random(200) < 0.5, observed, predicted)
    by_sklearn = {
        "accuracy": accuracy_score(observed, predicted),
        "macro_f1": f1_score(observed, predicted, average="macro"),
    }
    found = {
        "script": VERSION,
        "versions": {name: version(name) for name in ("ranx", "rectools", "scikit-learn", "numpy")},
        "scores": scores.tolist(),
        "truth": truth.tolist(),
        "attributes": attributes.astype(int).tolist(),
        "plays": plays.tolist(),
        "observed": observed.tolist(),
        "predicted": predicted.tolist(),
        "ranx": by_ranx,
        "rectools": {name: float(value) for name, value in by_rectools.items()},
        "sklearn": {name: float(value) for name, value in by_sklearn.items()},
    }
    with open(path, "w") as file:
        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
