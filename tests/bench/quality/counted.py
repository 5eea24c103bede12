"""Trained rows that know what is popular now: ours, and SASRec with the same counts.

Decayed counts of plays and the item's age are a learnt part of the score (:mod:`intentrec_core.features.play_counts`). They are
as old as in a table that is refreshed every minute. A row without them knows of popularity what its item biases have learnt.

Counts are those of the moment of the target. So these rows are asked where that moment is known, as popularity is. They are not
asked where it is unknown, nor in leave-one-out, which learns plays that are later than a target.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import torch

from intentrec_core.baselines.sequence_models import SASRec
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import pack_members
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.reports import Trained
from intentrec_core.training.train import Validation, train
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.neural import (
    BUDGETS,
    NEURAL_CODE,
    SHORTER_SCHEDULE,
    Budget,
    Build,
    Known,
    Learner,
)
from tests.bench.quality.rows import Answers, Row

THREE_SEEDS = (0, 1, 2)
COUNTED_CODE = (*NEURAL_CODE, "tests/bench/quality/counted.py")
#: How old counts may be, in seconds of event time.
REFRESH_S = 60


class CountedLearner(Learner):
    """Trains a row with counts. Its item biases start from 0, as in production: they are what counts do not explain."""

    def first(self, known: Known, config: TrainConfig, validation: Validation | None = None) -> Trained:
        """See :meth:`Learner.first`."""
        members = pack_members(known.features.layout, known.plays)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = self._build(self._model, self._domain, known.table)
        return train(members, known.features, known.table, config, start=start, device="cpu", validation=validation)


def counted_rows() -> list[Row]:
    """SASRec with counts, and V3 with counts, without and with own items."""
    counts: Mapping[str, object] = {"item_counts": True, "count_refresh_s": REFRESH_S}
    no_intent = {"intent_stage": False, "intent_score": False}
    return [
        _row("SASRec with counts", SASRec, {**no_intent, **counts}),
        _row("V3 with intents and counts in the score", IntentRec, counts, is_ours=True),
        _row(
            "V3 with intents, own items and counts in the score",
            IntentRec,
            {"own_items": True, **counts},
            is_ours=True,
        ),
    ]


def _row(name: str, build: Build, changes: Mapping[str, object], *, is_ours: bool = False) -> Row:
    budgets = {data: budget.text() for data, budget in BUDGETS.items()} | {"else": Budget().text()}
    configuration = json.dumps([name, dict(changes), budgets, SHORTER_SCHEDULE], sort_keys=True)

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        budget = BUDGETS.get(measured.name, Budget())
        model = dataclasses.replace(budget.model, **changes)
        config = dataclasses.replace(budget.train, seed=seed)
        return CountedLearner(loaded, build, model, config, SHORTER_SCHEDULE).answer(protocol)

    return Row(
        name,
        configuration,
        answer,
        COUNTED_CODE,
        THREE_SEEDS,
        is_ours,
        is_trained=True,
        protocols=lambda protocol: protocol != "leave-one-out" and not protocol.endswith("time unknown"),
    )
