"""Trained baselines that are given what ours has: own items, and as many weights.

SASRec and GRU know an item by its embedding alone, so their keys of own items are made of that. All rows with own items are
offered the same two schedules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from intentrec_core.baselines.sequence_models import GRU4Rec, MultiTaskTransformer, SASRec
from intentrec_core.domain.spec import Domain
from intentrec_core.features.columns import ContextBatch
from intentrec_core.model.model import ItemFeatures, ModelConfig
from intentrec_core.model.own_items import OwnItems
from tests.bench.quality.neural import SHORTER_SCHEDULE, _row, without_short_term
from tests.bench.quality.rows import Row

THREE_SEEDS = (0, 1, 2)
#: Layers of V1, so that without its items it has nearly as many weights as V3 of two layers: 225,140 of 244,497 on the world.
LAYERS_OF_V1 = 3


class SASRecWithOwnItems(SASRec):
    """SASRec, with the member's own items in its score."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemFeatures) -> None:
        super().__init__(dataclasses.replace(config, own_items=False), domain, items)
        self.own_items = OwnItems(config.width, config.width)

    def _fields(self, batch: ContextBatch) -> Tensor:
        return self.item(batch.item_row)


class GRUWithOwnItems(GRU4Rec):
    """GRU4Rec, with the member's own items in its score."""

    def __init__(self, config: ModelConfig, domain: Domain, items: ItemFeatures) -> None:
        super().__init__(dataclasses.replace(config, own_items=False), domain, items)
        self.own_items = OwnItems(config.width, config.width)

    def _fields(self, batch: ContextBatch) -> Tensor:
        return self.item(batch.item_row)


def fair_rows() -> list[Row]:
    """Baselines with own items, and V1 of V3's size."""
    own: Mapping[str, object] = {"intent_stage": False, "intent_score": False, "own_items": True}
    large: Mapping[str, object] = {"intent_score": False, "num_layers": LAYERS_OF_V1}
    rows = [
        _row("GRU with own items", GRUWithOwnItems, own, shorter_schedule=SHORTER_SCHEDULE),
        _row("SASRec with own items", SASRecWithOwnItems, own, seeds=THREE_SEEDS, shorter_schedule=SHORTER_SCHEDULE),
        _row("V0 with own items", without_short_term, own, seeds=THREE_SEEDS, shorter_schedule=SHORTER_SCHEDULE),
        _row("V1 of V3's size", MultiTaskTransformer, large, seeds=THREE_SEEDS),
    ]
    return [dataclasses.replace(row, code=(*row.code, "tests/bench/quality/fair.py")) for row in rows]
