"""One play, one recomputed window, one list: a per-event program with the model. Needs intentrec_core alone.

A member's state is their context, packed, as text: frameworks keep JSON tables. Members the table does not know yet bring the
past that our worker has in its changelog.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import torch

from intentrec_core.bundle.contents import load_bundle
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.history.history import EventLayout
from intentrec_core.model.model import IntentRec
from tests.bench.baselines.recompute import WindowRecompute
from tests.bench.worker_plays import past

NUM_RECOMMENDATIONS = 10
#: The mean of our contexts; a sliding window, as a tutorial would have it.
CONTEXT_PLAYS = 256


class PerEventModel:
    """A bundle's model and items; each call answers one play."""

    def __init__(self, bundle: Path) -> None:
        loaded = load_bundle(bundle)
        self._layout = EventLayout(loaded.domain)
        self._recompute = WindowRecompute(
            IntentRec.of(loaded.weights), FeatureBuilder(loaded.domain, loaded.vocabulary, loaded.item_table)
        )
        self._vocabulary, self._titles = loaded.vocabulary, loaded.item_table.titles
        self._weights_VW = torch.from_numpy(loaded.vectors.weights)
        self._bias_V = torch.from_numpy(loaded.vectors.bias).index_fill(0, torch.tensor([0]), -torch.inf)
        self._heads = [(head.name, head.label_names) for head in loaded.domain.heads]

    def answer(self, play: dict[str, Any], state: str | None) -> tuple[bytes, str]:
        """The list and the intents after ``play``, as JSON, and the member's next state."""
        layout = self._layout
        packed = layout.pack(
            item_id=play["item_id"],
            event_id=play["event_id"],
            ts_ms=play["ts"],
            duration_s=None,
            attributes=play["context"],
        )
        before = past(layout, int(play["user_id"].partition("-")[2])) if state is None else base64.b64decode(state)
        context = (before + packed.data)[-CONTEXT_PLAYS * layout.size :]
        return self._encode(play, context), base64.b64encode(context).decode()

    def _encode(self, play: dict[str, Any], context: bytes) -> bytes:
        encoded = self._recompute([context])
        scores = torch.addmv(self._bias_V, self._weights_VW, torch.from_numpy(encoded.item_NW[0]))
        watched = self._vocabulary.rows(self._layout.view(context)["item_hash"])
        top = scores.index_fill_(0, torch.from_numpy(watched), -torch.inf).topk(NUM_RECOMMENDATIONS)
        items = [
            {"item_id": self._vocabulary.item_ids[row], "title": self._titles[row], "score": round(score, 5)}
            for row, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        intents = {
            name: dict(zip(labels, head[0].tolist(), strict=True))
            for (name, labels), head in zip(self._heads, encoded.heads, strict=True)
        }
        return msgspec.json.encode(
            {"event_id": play["event_id"], "user_id": play["user_id"], "items": items, "intents": intents}
        )
