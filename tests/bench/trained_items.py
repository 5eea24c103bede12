"""Item vectors and queries of a trained model: a simulated world, played, learned and written as a bundle.

    world ─▶ plays ─▶ train ─▶ item vectors, augmented with the items' labels
                         └──▶ contexts of members ─▶ E and head probabilities ─▶ queries, of several betas

An index is planned with the queries of some members, at their newest play, and asked those of all others, at any of their plays.
Every item of the catalogue has a row, played or not. Training takes minutes for a million items, so what it gives is kept
under ``.intentrec/bench``, named by its settings and by the code it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

import intentrec_core
from index import conditioning
from index.conditioning import augment, query
from intentrec_core.bundle.contents import item_label_heads, item_vectors
from intentrec_core.datasets.movielens import fetch_movielens
from intentrec_core.domain.toml import domain_text, parse_domain
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.context_batch import collate
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import anchor
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.intent_score import weighted_scores
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.simulation.simulate import World
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.first_model import fit
from intentrec_core.training.train import train
from stream.bundles.builder import NUM_PLANNING, newest_contexts, planning_queries
from stream.settings import Settings

CACHE = Path(".intentrec/bench")
#: What a worker's beta may be; neighbours share one, as in a bundle's planning queries.
BETAS = np.repeat(np.array([0.0, 0.5, 1.0], dtype=np.float32), 2)
#: Members asked at once: their contexts are encoded in full.
_ENCODED = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, and how many queries are asked and planned with. ``max_train_s`` None: all epochs, which is repeatable."""

    num_items: int
    num_plays: int
    num_users: int
    max_train_s: float | None
    epochs: int = 8
    width: int = 128
    num_queries: int = 20_000
    num_planning: int = 1024
    seed: int = 20240811


#: The recipe of MovieLens-100K: trained on its earliest 70 %, and asked about the plays after that. All epochs, however busy the
#: machine is: a model that has hardly learned asks for what is popular alone.
MOVIELENS = Recipe(num_items=0, num_plays=70_000, num_users=943, max_train_s=None, epochs=15, width=64)


def recipe(num_items: int) -> Recipe:
    """At least two plays an item, some 60 a member, and a training time that grows with both, up to three minutes."""
    num_plays = max(60_000, 2 * num_items)
    train_s = min(170.0, 60.0 + 110e-6 * num_items)
    return Recipe(num_items=num_items, num_plays=num_plays, num_users=max(2100, num_plays // 60), max_train_s=train_s)


@dataclass(frozen=True, slots=True)
class TrainedItems:
    """Shapes: vectors f32[V, D'] with row 0 for no item, queries f32[N, D'] in no particular order, planning f32[P, D'] of other
    members, popularity i64[V]: plays that were trained on.

    ``facts`` say what was trained and how well it learned.
    """

    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    planning: NDArray[np.float32]
    popularity: NDArray[np.int64]
    facts: dict[str, float]


ARRAYS = ("vectors", "queries", "planning", "popularity")


def trained_items(settings: Recipe) -> TrainedItems:
    """The vectors of a recipe, trained now or kept from an earlier time with the same code.

    Cost: for 1,000,000 items about five minutes the first time, and 8 GB.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / f"items-{settings.num_items}-{_key(settings)}.npz"
    if not kept.exists():
        made = _movielens(settings) if settings == MOVIELENS else _simulated(settings)
        temporary = kept.with_suffix(f".{os.getpid()}.npz")
        arrays = {name: getattr(made, name) for name in ARRAYS}
        np.savez(temporary, facts=np.array(json.dumps(made.facts)), **arrays)
        temporary.replace(kept)
    read = np.load(kept)
    return TrainedItems(**{name: read[name] for name in ARRAYS}, facts=json.loads(str(read["facts"])))


def _key(settings: Recipe) -> str:
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    code = Path(intentrec_core.__file__).parent.rglob("*.py")
    for path in sorted([*code, Path(conditioning.__file__), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _simulated(settings: Recipe) -> TrainedItems:
    world = World("video", settings.num_users, settings.num_items, settings.seed)
    domain = parse_domain(domain_text("video"), "video")
    catalogue = Catalogue(world.catalogue())
    vocabulary = Vocabulary.build(item.item_id for item in catalogue)
    table = ItemTable(domain, vocabulary, catalogue)
    features = FeatureBuilder(domain, vocabulary, table)
    plays = pa.concat_tables(batch.table() for batch in world.batches(settings.num_plays))
    members = pack_members(features.layout, plays)
    popularity = np.bincount(features.rows(members.events["item_hash"]), minlength=len(vocabulary))
    at_s = plays["ts_ms"][-1].as_py() / 1000
    began_s = time.perf_counter()
    trained = train(
        members,
        features,
        table,
        TrainConfig(max_seconds=settings.max_train_s, epochs=settings.epochs, batch_windows=32, seed=settings.seed),
        model_config=ModelConfig(width=settings.width, num_heads=4, dropout=0.1),
        device="cpu",
    )
    vectors = item_vectors(trained.model.weights(), table, at_s)
    facts: dict[str, float] = {
        "width": settings.width,
        "plays": settings.num_plays,
        "train_s": round(time.perf_counter() - began_s, 1),
        "epochs": len(trained.curve),
        "played_ratio": round(np.count_nonzero(popularity[1:]) / settings.num_items, 3),
        "first_loss": round(trained.curve[0].loss["item"], 3),
        "last_loss": round(trained.curve[-1].loss["item"], 3),
    }
    chosen = np.random.default_rng(settings.seed).permutation(len(members)).tolist()
    planning, asked = chosen[: settings.num_planning], chosen[settings.num_planning :]
    return TrainedItems(
        augment(vectors.weights, vectors.bias, list(vectors.labels.values())),
        queries_of(trained.model, features, members, asked, at_most=settings.num_queries),
        queries_of(trained.model, features, members, planning),
        popularity,
        facts,
    )


def _movielens(settings: Recipe) -> TrainedItems:
    """Items of a bundle that was trained on the earliest plays, and queries of contexts that end with a later play."""
    found = fetch_movielens(Settings.load().cache_dir)
    plays = found.plays.slice(0, settings.num_plays)
    began_s = time.perf_counter()
    config = TrainConfig(max_seconds=settings.max_train_s, epochs=settings.epochs)
    model = fit(plays, found.catalogue, domain="movielens", config=config)
    at_ms = plays["ts_ms"][-1].as_py()
    vectors = item_vectors(model.network.weights(), model.item_table, at_ms / 1000)
    members = pack_members(model.features.layout, found.plays)
    chosen = np.random.default_rng(settings.seed).permutation(len(members)).tolist()
    return TrainedItems(
        augment(vectors.weights, vectors.bias, list(vectors.labels.values())),
        queries_of(model.network, model.features, members, chosen, at_most=settings.num_queries, from_ms=at_ms + 1),
        planning_queries(model.network, model.features, newest_contexts(model.features, plays, NUM_PLANNING)),
        np.bincount(
            model.features.rows(members.events["item_hash"][members.events["ts_ms"] <= at_ms]),
            minlength=len(model.vocabulary),
        ),
        {"width": model.network.config.width, "plays": len(plays), "train_s": round(time.perf_counter() - began_s, 1)},
    )


def queries_of(
    model: IntentRec,
    features: FeatureBuilder,
    members: MemberPlays,
    chosen: Sequence[int],
    *,
    at_most: int | None = None,
    from_ms: int = 0,
) -> NDArray[np.float32]:
    """What an index is asked after each play of the members' last contexts, from a time on; ``at_most`` None: after the last play
    only. Shape: f32[N, D'].

    A context is encoded once: the model's output at a play depends on nothing after it.
    """
    window, labelled = features.layout.window, item_label_heads(model.domain)
    spans, asked, num = list(members.spans()), [], 0
    for low in range(0, len(chosen), _ENCODED):
        contexts = []
        for begin, end in (spans[member] for member in chosen[low : low + _ENCODED]):
            begin += anchor(end - begin, window)
            times_ms = members.events["ts_ms"][begin:end]
            contexts.append((members.packed(begin, end), times_ms >= from_ms))
        batch = collate(features.columns([context for context, _ in contexts], [0] * len(contexts)))
        with torch.inference_mode():
            output = model.eval()(batch)
        wanted = np.zeros(output.item_BTW.shape[:2], dtype=np.bool_)
        for row, (_, own) in enumerate(contexts):
            wanted[row, : len(own)] = own if at_most is not None else np.arange(len(own)) == len(own) - 1
        heads = [
            torch.softmax(logits, dim=-1).numpy()[wanted]
            for head, logits in zip(model.domain.heads, output.head_logits, strict=True)
            if head in labelled
        ]
        betas = [
            beta for head, beta in zip(model.domain.heads, model.weights().betas(), strict=True) if head in labelled
        ]
        asked.append(query(output.item_BTW.numpy()[wanted], weighted_scores(heads, betas)))
        num += len(asked[-1])
        if at_most is not None and num >= at_most:
            break
    queries = np.concatenate(asked)[:at_most]
    queries[:, model.config.width + 1 :] *= np.resize(BETAS, len(queries))[:, None]
    return queries
