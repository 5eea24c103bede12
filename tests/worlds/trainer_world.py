"""Plays with something to learn, for tests of the trainer: members walk through the items in order, with a slip now and then."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.table import PlayRow, plays_table
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

DOMAIN_TEXT = DOMAIN.format(window=8)
TINY_MODEL = ModelConfig(width=16, num_heads=2, num_layers=1, intent_width=8, dropout=0.0)


@dataclass
class WalkingWorld:
    """Members who walk through ``num_items`` items."""

    num_items: int = 20
    num_members: int = 12

    def __post_init__(self) -> None:
        self.world = TinyWorld(window=8, num_items=self.num_items)
        self.domain = self.world.domain
        self.catalogue: Catalogue = self.world.catalogue

    def rows(self, num_plays: int, seed: int = 0, first: int = 0, num_items: int | None = None) -> Iterator[PlayRow]:
        """Plays ``first`` to ``first + num_plays`` of the one endless walk of this seed."""
        random_ = random.Random(seed)
        items = num_items or self.num_items
        places = [random_.randrange(items) for _ in range(self.num_members)]
        for number in range(first + num_plays):
            member = random_.randrange(self.num_members)
            step = 1 if random_.random() < 0.9 else random_.randrange(items)
            places[member] = (places[member] + step) % items
            if number >= first:
                yield PlayRow(
                    event_id=f"event-{number}",
                    user_id=f"member-{member}",
                    item_id=f"item-{places[member]}",
                    ts_ms=START_MS + number * 30_000,
                    duration_s=30.0 if places[member] % 2 else 900.0,
                    context={"device": "tv", "max_maturity": "3"},
                )

    def plays(self, num_plays: int, seed: int = 0, first: int = 0) -> pa.Table:
        """The same as a table."""
        return plays_table(self.rows(num_plays, seed, first))

    def parts(self, catalogue: Catalogue | None = None) -> tuple[Vocabulary, ItemTable, FeatureBuilder]:
        """Vocabulary, item table and features of all items."""
        vocabulary = Vocabulary.build(f"item-{i}" for i in range(self.num_items))
        table = ItemTable(self.domain, vocabulary, catalogue or self.catalogue)
        return vocabulary, table, FeatureBuilder(self.domain, vocabulary, table)

    def trained(self, plays: pa.Table, epochs: int = 8) -> IntentRec:
        """A small model that has learned the walk. Takes about two seconds."""
        _, table, features = self.parts()
        config = TrainConfig(epochs=epochs, learning_rate=1e-2, intent_weight=0.5, batch_windows=16)
        return train(plays, features, table, config, model_config=TINY_MODEL, device="cpu").model
