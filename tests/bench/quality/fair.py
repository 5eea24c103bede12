"""Trained baselines that are given what ours has: own items, and as many weights.

SASRec and GRU know an item by its embedding alone, so their keys of own items are made of that. All rows with own items are
offered the same two schedules.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from torch import Tensor

from intentrec_core.baselines.sequence_models import GRU4Rec, MultiTaskTransformer, SASRec
from intentrec_core.domain.spec import Domain
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.features.labels import ItemLabels
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.own_items import OwnItems
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.neural import (
    BUDGETS,
    NEURAL_CODE,
    SHORTER_SCHEDULE,
    Budget,
    Learner,
    _row,
    without_short_term,
)
from tests.bench.quality.rows import Answers, Row

THREE_SEEDS = (0, 1, 2)
#: Layers of V1, so that without its items it has nearly as many weights as V3 of two layers: 225,140 of 244,497 on the world.
LAYERS_OF_V1 = 3
#: Where intents say nothing, V1 of so many layers stands still for some epochs. The patience of the other rows ends it there.
PATIENCE_OF_V1 = 10


class SASRecWithOwnItems(SASRec):
    """SASRec, with the member's own items in its score."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(dataclasses.replace(config, own_items=False), domain, items)
        self.own_items = OwnItems(config.width, config.width)

    def _fields(self, batch: ContextBatch) -> Tensor:
        return self.item(batch.item_row)


class GRUWithOwnItems(GRU4Rec):
    """GRU4Rec, with the member's own items in its score."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemLabels) -> None:
        super().__init__(dataclasses.replace(config, own_items=False), domain, items)
        self.own_items = OwnItems(config.width, config.width)

    def _fields(self, batch: ContextBatch) -> Tensor:
        return self.item(batch.item_row)


def fair_rows() -> list[Row]:
    """Baselines with own items, and V1 of V3's size."""
    own: Mapping[str, object] = {"intent_stage": False, "intent_score": False, "own_items": True}
    rows = [
        _row("GRU with own items", GRUWithOwnItems, own, shorter_schedule=SHORTER_SCHEDULE),
        _row("SASRec with own items", SASRecWithOwnItems, own, seeds=THREE_SEEDS, shorter_schedule=SHORTER_SCHEDULE),
        _row("V0 with own items", without_short_term, own, seeds=THREE_SEEDS, shorter_schedule=SHORTER_SCHEDULE),
        _v1_of_v3s_size(),
    ]
    return [dataclasses.replace(row, code=(*row.code, "tests/bench/quality/fair.py")) for row in rows]


def _v1_of_v3s_size() -> Row:
    name, changes = "V1 of V3's size", {"intent_score": False, "num_layers": LAYERS_OF_V1}

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        budget = BUDGETS.get(measured.name, Budget())
        config = dataclasses.replace(budget.train, seed=seed, patience=PATIENCE_OF_V1)
        model = dataclasses.replace(budget.model, **changes)
        return Learner(loaded, MultiTaskTransformer, model, config).answer(protocol)

    budgets = {data: budget.text() for data, budget in BUDGETS.items()} | {"else": Budget().text()}
    configuration = json.dumps([name, changes, budgets, PATIENCE_OF_V1], sort_keys=True)
    return Row(name, configuration, answer, NEURAL_CODE, THREE_SEEDS, is_trained=True)
