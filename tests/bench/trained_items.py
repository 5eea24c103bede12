"""Item vectors and queries of a trained model: a simulated world, played, learned and written as a bundle.

    world ─▶ plays ─▶ train ─▶ item vectors, augmented with the items' labels
                         └──▶ contexts of members ─▶ E and head probabilities ─▶ queries, beta 0.5

Every item of the catalogue has a row, played or not. Training takes minutes for a million items, so what it gives is kept
under ``.intentrec/bench``, named by its settings and by the code it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import intentrec_core
from index import conditioning
from index.conditioning import augment, query
from intentrec_core.bundle.contents import item_label_heads, item_vectors
from intentrec_core.domain.toml import domain_text, parse_domain
from intentrec_core.engine.reference import recompute
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import anchor
from intentrec_core.model.model import IntentRec, ModelConfig
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.simulation.simulate import World
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train

CACHE = Path(".intentrec/bench")
BETA = 0.5
#: Members asked at once: their contexts are encoded in full.
_ENCODED = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained. ``num_queries`` are of as many different members, at their newest play."""

    num_items: int
    num_plays: int
    num_users: int
    max_train_s: float
    width: int = 128
    num_queries: int = 2048
    seed: int = 20240811


def recipe(num_items: int) -> Recipe:
    """Two plays an item, some 60 a member, and a training time that grows with both, up to three minutes."""
    num_plays = max(60_000, 2 * num_items)
    train_s = min(170.0, 5.0 + 165e-6 * num_items)
    return Recipe(num_items=num_items, num_plays=num_plays, num_users=max(2100, num_plays // 60), max_train_s=train_s)


@dataclass(frozen=True, slots=True)
class TrainedItems:
    """Shapes: vectors f32[V, D'] with row 0 for no item, queries f32[N, D'], members in no particular order.

    ``facts`` say what was trained and how well it learned.
    """

    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    facts: dict[str, float]


def trained_items(settings: Recipe) -> TrainedItems:
    """The vectors of a recipe, trained now or kept from an earlier time with the same code.

    Cost: for 1,000,000 items about five minutes the first time, and 8 GB.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / f"items-{settings.num_items}-{_key(settings)}.npz"
    if not kept.exists():
        made = _make(settings)
        temporary = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(temporary, vectors=made.vectors, queries=made.queries, facts=np.array(json.dumps(made.facts)))
        temporary.replace(kept)
    arrays = np.load(kept)
    return TrainedItems(arrays["vectors"], arrays["queries"], json.loads(str(arrays["facts"])))


def _key(settings: Recipe) -> str:
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    code = Path(intentrec_core.__file__).parent.rglob("*.py")
    for path in sorted([*code, Path(conditioning.__file__), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _make(settings: Recipe) -> TrainedItems:
    world = World("video", settings.num_users, settings.num_items, settings.seed)
    domain = parse_domain(domain_text("video"), "video")
    catalogue = Catalogue(world.catalogue())
    vocabulary = Vocabulary.build(item.item_id for item in catalogue)
    table = ItemTable(domain, vocabulary, catalogue)
    features = FeatureBuilder(domain, vocabulary, table)
    plays = pa.concat_tables(batch.table() for batch in world.batches(settings.num_plays))
    members = pack_members(features.layout, plays)
    rows = np.unique(features.rows(members.events["item_hash"]))
    at_s = plays["ts_ms"][-1].as_py() / 1000
    began_s = time.perf_counter()
    trained = train(
        members,
        features,
        table,
        TrainConfig(max_seconds=settings.max_train_s, epochs=8, batch_windows=32, seed=settings.seed),
        model_config=ModelConfig(width=settings.width, num_heads=4, dropout=0.1),
        device="cpu",
    )
    vectors = item_vectors(trained.model, table, at_s)
    facts: dict[str, float] = {
        "width": settings.width,
        "plays": settings.num_plays,
        "train_s": round(time.perf_counter() - began_s, 1),
        "epochs": len(trained.curve),
        "played_ratio": round(len(rows) / settings.num_items, 3),
        "first_loss": round(trained.curve[0].loss["item"], 3),
        "last_loss": round(trained.curve[-1].loss["item"], 3),
    }
    return TrainedItems(
        augment(vectors.weights, vectors.bias, list(vectors.labels.values())),
        _queries(trained.model, features, members, settings),
        facts,
    )


def _queries(model: IntentRec, features: FeatureBuilder, members: MemberPlays, settings: Recipe) -> NDArray[np.float32]:
    random, window = np.random.default_rng(settings.seed), features.layout.window
    spans = list(members.spans())
    chosen = random.permutation(len(spans))[: settings.num_queries].tolist()
    labelled = item_label_heads(model.domain)
    asked = []
    for low in range(0, len(chosen), _ENCODED):
        contexts = [
            members.packed(begin + anchor(end - begin, window), end)
            for begin, end in (spans[member] for member in chosen[low : low + _ENCODED])
        ]
        encoded = recompute(model, features, contexts)
        probabilities = [p for head, p in zip(model.domain.heads, encoded.heads, strict=True) if head in labelled]
        asked.append(query(encoded.item_NW, probabilities, BETA))
    return np.concatenate(asked)
