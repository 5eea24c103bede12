"""What int8 keys and values change of the answers, and how good a model is whose heads share them: trained on MovieLens-100K, its
members played on with either type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from intentrec_core.datasets.movielens import fetch_movielens
from intentrec_core.domain.toml import load_domain
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.live import LiveEncoder, LiveUpdate, ScoredItem
from intentrec_core.engine.live_play import LivePlay
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.table import PlayRow, check_plays, play_rows, sort_plays
from intentrec_core.training.first_model import fit
from stream.settings import Settings
from tests.bench.harness import Figures

K = 10
SEEDS = (0, 1)
EPOCHS = 2
NUM_BEFORE, NUM_LATER = 70_000, 5_000
#: All items are scored for one update in so many: for the others, the lists alone.
_EVERY = 20
_BATCH = 64


def lists(quick: bool) -> Figures:
    """Over all seeds: the largest difference of a score, the share of equal lists, and NDCG@10 of either type, also of models
    whose heads share keys and values.
    """
    found, of_one_head = _found(quick, None), _found(quick, 1)
    ratios = [int8 / plain for int8, plain in zip(found["int8"], found["float32"], strict=True)]
    return {
        "kv_int8_largest_difference": round(max(found["difference"]), 4),
        "kv_score_spread": round(float(np.mean(found["spread"])), 3),
        "kv_int8_equal_lists": round(float(np.mean(found["equal"])), 4),
        "kv_float32_ndcg_10": [round(value, 4) for value in found["float32"]],
        "kv_int8_ndcg_10": [round(value, 4) for value in found["int8"]],
        "kv_int8_ndcg_over_float32": round(float(np.mean(ratios)), 4),
        "kv_heads_1_float32_ndcg_10": [round(value, 4) for value in of_one_head["float32"]],
        "kv_heads_1_int8_ndcg_10": [round(value, 4) for value in of_one_head["int8"]],
    }


def _found(quick: bool, num_kv_heads: int | None) -> dict[str, list[float]]:
    """Of models with so many heads of keys and values, one for each seed."""
    plays = fetch_movielens(Settings.load().cache_dir)
    model_config = ModelConfig.for_domain(load_domain("movielens"), num_kv_heads=num_kv_heads)
    found: dict[str, list[float]] = {name: [] for name in ("difference", "equal", "float32", "int8", "spread")}
    for seed in SEEDS[: 1 if quick else None]:
        table = sort_plays(plays.plays)
        model = fit(
            table.slice(0, NUM_BEFORE),
            plays.catalogue,
            domain="movielens",
            epochs=1 if quick else EPOCHS,
            seed=seed,
            model_config=model_config,
        )
        lives = {dtype: LiveEncoder(model, kv_dtype=dtype) for dtype in KvDtype}
        for live in lives.values():
            live.add_history(table.slice(0, NUM_BEFORE))
        earliest_ms = model.network.domain.earliest_ms
        later = list(
            play_rows(check_plays(table.slice(NUM_BEFORE, 500 if quick else NUM_LATER), earliest_ms=earliest_ms))
        )
        for name, values in _played(lives, later).items():
            found[name] += [float(np.max(values)) if name == "difference" else float(np.mean(values))]
        shown = ", ".join(f"{name} {values[-1]:.5f}" for name, values in found.items())
        print(f"heads of keys and values: {num_kv_heads or 'all'}, seed {seed}: {shown}", flush=True)
    return found


def _played(lives: dict[KvDtype, LiveEncoder], later: Sequence[PlayRow]) -> dict[str, list[float]]:
    """Plays of all members in the order of time; each judges the list that its member was given before it."""
    found: dict[str, list[float]] = {name: [] for name in ("difference", "equal", "float32", "int8", "spread")}
    last: dict[str, dict[KvDtype, list[ScoredItem]]] = {}
    number = 0
    keys = lives[KvDtype.FLOAT32].attribute_keys
    for low in range(0, len(later), _BATCH):
        plays = [_live_play(play, keys) for play in later[low : low + _BATCH]]
        updates = {dtype: live.play_many(plays) for dtype, live in lives.items()}
        for nth, play in enumerate(plays):
            for dtype, items in last.get(play.user_id, {}).items():
                found[dtype].append(_gain([item.item_id for item in items], play.item_id))
            of_play = {dtype: updates[dtype][nth] for dtype in lives}
            listed = {dtype: update.recommend(K) for dtype, update in of_play.items()}
            last[play.user_id] = listed
            plain, int8 = ([item.item_id for item in listed[dtype]] for dtype in KvDtype)
            found["equal"].append(float(plain == int8))
            if number % _EVERY == 0:
                scores = [_scores(of_play[dtype]) for dtype in KvDtype]
                found["difference"].append(max(abs(scores[0][item] - scores[1][item]) for item in scores[0]))
                found["spread"].append(float(np.std(list(scores[0].values()))))
            number += 1
    return found


def _live_play(play: PlayRow, keys: Sequence[str]) -> LivePlay:
    given = dict(play.context or {}) | ({"action": play.action} if play.action is not None else {})
    return LivePlay(
        user_id=play.user_id,
        item_id=play.item_id,
        ts_ms=play.ts_ms,
        event_id=play.event_id,
        duration_s=play.duration_s,
        attributes={key: value for key, value in given.items() if key in keys},
    )


def _scores(update: LiveUpdate) -> dict[str, float]:
    return {item.item_id: item.score for item in update.recommend(1 << 20, exclude_watched=False)}


def _gain(items: Sequence[str], item_id: str) -> float:
    return 1.0 / math.log2(items.index(item_id) + 2) if item_id in items else 0.0
