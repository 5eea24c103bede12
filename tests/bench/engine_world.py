"""The world of the engine's bench: the video domain, 10,000 items, full contexts, a model of the paper's size.

Weights are random: what a step costs does not depend on them. Every member's context cycles between n + 1 and 2n plays, as it
does in a worker that has run for a while, and members stand at different places of the cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from intentrec_core.domain.toml import load_domain
from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import History, anchor
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec

NUM_ITEMS = 10_000
START_MS = 1_700_000_000_000
CONFIG = ModelConfig(width=128, num_heads=4, num_layers=2, intent_width=64)


@dataclass
class EngineWorld:
    """Items and a model for a window of ``window`` plays."""

    window: int
    config: ModelConfig = CONFIG

    def __post_init__(self) -> None:
        self.domain = replace(load_domain("video"), window=self.window)
        rng = np.random.default_rng(0)
        genres = next(f for f in self.domain.fields if f.name == "genre").values
        items = [
            Item(
                f"i{i}",
                f"Title {i}",
                {
                    "genres": [genres[g] for g in rng.choice(len(genres), 2, replace=False)],
                    "format": ("movie", "show")[i % 2],
                    "released": START_MS / 1000 - 86_400.0 * int(rng.integers(1, 5000)),
                    "language": "en",
                    "runtime_s": float(rng.integers(600, 7200)),
                },
            )
            for i in range(NUM_ITEMS)
        ]
        vocabulary = Vocabulary.build(item.item_id for item in items)
        table = ItemTable(self.domain, vocabulary, Catalogue(items))
        torch.manual_seed(0)
        self.model = IntentRec(self.config, self.domain, table).eval()
        self.features = FeatureBuilder(self.domain, vocabulary, table)
        self.layout = self.features.layout

    def engine(self, num_slots: int, kv_dtype: KvDtype = KvDtype.FLOAT32) -> IncrementalEngine:
        """An engine with room for ``num_slots`` members."""
        return IncrementalEngine(
            self.model.weights(),
            self.features,
            pool_bytes=num_slots * context_bytes(self.model, kv_dtype),
            version="bench",
            kv_dtype=kv_dtype,
            num_threads=torch.get_num_threads(),
        )

    def members(self, counts: Sequence[int], seed: int = 0) -> list[Member]:
        """Members with histories of so many plays, those that left the context included."""
        rng = np.random.default_rng(seed)
        return [Member(self, f"user-{i}", count, rng) for i, count in enumerate(counts)]


class Member:
    """A member who goes on playing: their context at every play, as a worker's history holds it."""

    def __init__(self, world: EngineWorld, user_id: str, count: int, rng: np.random.Generator) -> None:
        self.user_id, self._world, self._rng = user_id, world, rng
        first = anchor(count, world.window)
        self._history = History()
        self._history.count = first
        self._at_ms, self._number = START_MS, first
        self._history.events = b"".join(self._play().data for _ in range(count - first))
        self._history.count, self._history.last_offset = count, count

    def _play(self):
        self._number += 1
        # Evenings of a few plays: a gap of minutes, now and then of a day, so that short-term windows differ.
        self._at_ms += int(self._rng.choice([1_200_000, 2_700_000, 72_000_000], p=[0.5, 0.3, 0.2]))
        return self._world.layout.pack(
            item_id=f"i{int(self._rng.zipf(1.3)) % NUM_ITEMS}",
            event_id=f"{self.user_id}-{self._number}",
            ts_ms=self._at_ms,
            duration_s=float(self._rng.integers(30, 6000)),
            attributes={"action": "discover", "device": "tv", "episode": 1},
        )

    def request(self) -> EncodeRequest:
        """The context as it is, nothing of it known to be cached."""
        return EncodeRequest(self.user_id, self._history.anchor(self._world.layout), self._history.events, 0)

    def play(self) -> EncodeRequest:
        """The next play, and the request that a worker makes of it."""
        fold = self._history.apply(self._world.layout, self._play(), self._history.last_offset + 1)
        return EncodeRequest(
            self.user_id,
            self._history.anchor(self._world.layout),
            self._history.events,
            0 if fold.evicted else fold.position,
        )
