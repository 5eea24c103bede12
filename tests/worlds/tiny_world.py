"""A small world for tests: a domain with every kind of field, items for it, and models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from intentrec_core.domain.toml import parse_domain
from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.engine.encoder import Encoder
from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout, PackedPlay
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.successors import Successors, SuccessorTable
from tests.worlds.networks import encoder_of

DOMAIN = """
name = "tiny"
[history]
window = {window}
watched = 24
session_gap_s = 1800
short_term_window_s = 86400
max_future_s = 300
[duration_weight]
kind = "log"
[[field]]
name = "action"
kind = "categorical"
source = "rule"
rule = "first_contact"
values = ["discover", "continue"]
intent = true
[[field]]
name = "device"
kind = "categorical"
source = "event"
key = "device"
values = ["tv", "phone"]
[[field]]
name = "length"
kind = "bucketed"
source = "event"
key = "duration_s"
edges = [60.0, 600.0]
intent = true
[[field]]
name = "genre"
kind = "multi_label"
source = "catalogue"
values = ["drama", "comedy", "kids"]
intent = true
[[field]]
name = "era"
kind = "bucketed"
source = "catalogue"
key = "year"
edges = [1980.0, 2000.0]
[[field]]
name = "age"
kind = "bucketed"
source = "rule"
rule = "time_since_release"
key = "release_s"
edges = [30.0, 365.0]
intent = true
[[field]]
name = "gap"
kind = "bucketed"
source = "rule"
rule = "gap"
edges = [60.0, 3600.0]
[[field]]
name = "hour"
kind = "categorical"
source = "rule"
rule = "hour_of_day"
[[field]]
name = "weekday"
kind = "categorical"
source = "rule"
rule = "day_of_week"
[[filter]]
kind = "watched"
unless_head = "action"
unless_values = ["continue"]
[[filter]]
kind = "available"
key = "available"
[[filter]]
kind = "at_most"
key = "maturity"
event_key = "max_maturity"
"""

START_MS = 1_700_000_000_000


def random_successors(num_rows: int, seed: int = 0, *, weight: float = 0.7, num_plays: int = 60) -> Successors:
    """What follows each item in random plays of three members: few items of any, none of some."""
    random = np.random.default_rng(seed)
    rows, member = random.integers(0, num_rows, size=num_plays), np.sort(random.integers(3, size=num_plays))
    return Successors(SuccessorTable.empty(num_rows).counted(rows, member), weight)


@dataclass
class TinyWorld:
    """The domain, its items and what is made of them."""

    window: int = 4
    num_items: int = 30

    def __post_init__(self) -> None:
        self.domain = parse_domain(DOMAIN.format(window=self.window), "tiny.toml")
        self.layout = EventLayout(self.domain)
        self.items = [self.item(i) for i in range(self.num_items)]
        self.vocabulary = Vocabulary.build(item.item_id for item in self.items)
        self.catalogue = Catalogue(self.items)
        self.table = ItemTable(self.domain, self.vocabulary, self.catalogue)
        self.features = FeatureBuilder(self.domain, self.vocabulary, self.table)

    def item(self, i: int) -> Item:
        """The i-th item."""
        genres = [name for bit, name in enumerate(["drama", "comedy", "kids"]) if (i + 1) >> bit & 1]
        attributes = {
            "genre": genres,
            "year": 1970 + 2 * i,
            "release_s": START_MS / 1000 - 86_400 * 20 * i,
            "available": i % 7 != 3,
            "maturity": i % 5,
        }
        return Item(f"item-{i}", f"Title {i}", attributes)

    def model(
        self,
        seed: int = 0,
        *,
        intent_stage: bool = True,
        item_counts: bool = False,
        own_items: bool = False,
        num_heads: int = 2,
        num_kv_heads: int | None = None,
    ) -> IntentRec:
        """A model with random weights, biases and slopes."""
        torch.manual_seed(seed)
        config = ModelConfig(
            width=16,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            num_layers=2,
            intent_width=8,
            dropout=0.1,
            intent_stage=intent_stage,
            item_counts=item_counts,
            count_refresh_s=90,
            own_items=own_items,
        )
        model = IntentRec(config, self.domain, self.table)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    def engine(
        self,
        model: IntentRec,
        *,
        num_slots: int = 8,
        version: str = "b0",
        kv_dtype: KvDtype = KvDtype.FLOAT32,
        make_encoder: Callable[[IntentRec, int], Encoder] | None = None,
        slot_contexts: int | None = None,
    ) -> IncrementalEngine:
        """An engine with ``num_slots`` slots or more; on the CPU each has room for ``slot_contexts`` whole contexts."""
        return IncrementalEngine(
            model.weights(),
            self.features,
            pool_bytes=num_slots * (slot_contexts or 1) * context_bytes(model, kv_dtype),
            version=version,
            kv_dtype=kv_dtype,
            make_encoder=None
            if make_encoder is None
            else partial(encoder_of, make_encoder, model, slot_contexts=slot_contexts),
        )

    def play(self, item: int, event: int | str, at_s: float, duration_s: float | None = 90.0) -> PackedPlay:
        """A packed play of ``item`` (unknown from ``num_items`` on), ``at_s`` seconds after the world began."""
        return self.layout.pack(
            item_id=f"item-{item}",
            event_id=f"event-{event}",
            ts_ms=START_MS + int(at_s * 1000),
            duration_s=duration_s,
            attributes={"device": ("tv", "phone", "fridge")[item % 3], "max_maturity": 3},
        )
