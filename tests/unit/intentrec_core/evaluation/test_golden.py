"""The metrics are those of independent libraries: tests/golden/make_metrics.py asked ranx, RecTools and scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.heads import HeadOutcomes, head_quality
from intentrec_core.evaluation.lists import coverage, diversity, popularity_of
from intentrec_core.evaluation.metrics import rank_metrics
from intentrec_core.evaluation.rankers import Ranked, ScoredTargets, rank
from intentrec_core.evaluation.task import EvaluationData, Task, make_task
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import PlayRow, plays_table
from tests.worlds.tiny_world import START_MS

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[3] / "golden" / "metrics.json").read_text())
NUM_ITEMS = len(GOLDEN["scores"][0]) - 1


@dataclass(frozen=True)
class GivenScores:
    """A ranker whose scores are those of the file."""

    def scores(self, task: Task) -> Iterator[ScoredTargets]:
        yield np.arange(len(task)), torch.tensor(GOLDEN["scores"], dtype=torch.float32)


@pytest.fixture(scope="module")
def ranked() -> Ranked:
    """Every target is the second play of a member of its own."""
    domain = load_domain("movielens")
    vocabulary = Vocabulary.build(f"i{row}" for row in range(1, NUM_ITEMS + 1))
    features = FeatureBuilder(domain, vocabulary, ItemTable(domain, vocabulary, Catalogue([])))
    rows = [
        PlayRow(f"{member}-{at}", f"u{member:02}", f"i{row}", START_MS + at)
        for at in (0, 1)
        for member, row in enumerate(GOLDEN["truth"])
    ]
    members = pack_members(features.layout, plays_table(rows))
    data = EvaluationData.of(members, features, np.arange(NUM_ITEMS + 1) > 0, hides_history=False)
    play = members.bounds[1:] - 1
    learned = np.full(len(play), len(play))
    learnable = np.ones(len(rows), dtype=np.bool_)
    return rank(
        GivenScores(), make_task(data, play, learnable=learnable, learned=learned, live=learned, now_s=data.ts_s[play])
    )


@pytest.mark.parametrize("name", GOLDEN["ranx"])
def test_a_ranking_metric_is_that_of_ranx(ranked: Ranked, name: str) -> None:
    found = rank_metrics(ranked.ranks)[name.replace("hit_rate", "hr")].mean()
    assert found == pytest.approx(GOLDEN["ranx"][name], rel=1e-9)


def test_lists_are_measured_as_by_rectools(ranked: Ranked) -> None:
    ten, theirs = ranked.listed[:, :10], GOLDEN["rectools"]
    assert coverage(ten, np.arange(NUM_ITEMS + 1) > 0) == pytest.approx(theirs["coverage@10"])
    attributes = np.array(GOLDEN["attributes"], dtype=np.float32)
    assert diversity(ten, attributes).mean() == pytest.approx(theirs["diversity@10"], rel=1e-6)
    plays = np.array(GOLDEN["plays"], dtype=np.float64)
    assert popularity_of(ten, plays).mean() == pytest.approx(theirs["plays@10"])


def test_a_heads_accuracy_and_f1_are_those_of_scikit_learn() -> None:
    predicted, observed = (np.array(GOLDEN[name]) for name in ("predicted", "observed"))
    outcomes = HeadOutcomes.empty(len(predicted), 5)
    outcomes.predicted[:] = predicted
    outcomes.observed[np.arange(len(observed)), observed] = True
    found = head_quality(outcomes)
    assert found.accuracy == pytest.approx(GOLDEN["sklearn"]["accuracy"])
    assert found.macro_f1 == pytest.approx(GOLDEN["sklearn"]["macro_f1"])
