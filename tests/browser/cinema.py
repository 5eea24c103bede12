"""A small cinema for tests in a browser: members stay with a genre for some plays, and two models have learned it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

import intentrec_core as intentrec
from intentrec_core.bundle.store import BundleStore
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.table import PlayRow, plays_table
from intentrec_core.training.config import TrainConfig
from stream.bundles.builder import build_bundle
from stream.settings import Settings

GENRES = ("Comedy", "Drama", "Horror", "Western")
TITLES_EACH = 12
DOMAIN = """
name = "cinema"
[history]
window = 16
watched = 64
session_gap_s = 1800
short_term_window_s = 86400
max_future_s = 300
[duration_weight]
kind = "none"
[[field]]
name = "genre"
kind = "multi_label"
source = "catalogue"
key = "genres"
values = ["Comedy", "Drama", "Horror", "Western"]
intent = true
[[field]]
name = "era"
kind = "bucketed"
source = "catalogue"
key = "year"
edges = [1980, 2000]
labels = ["before 1980", "1980 to 1999", "2000 and later"]
intent = true
[[field]]
name = "gap"
kind = "bucketed"
source = "rule"
rule = "gap"
edges = [60, 1800]
[[filter]]
kind = "watched"
"""
ROWS = """
[[rows]]
kind = "intent"
title = "In the mood for {label}"
head = "genre"
at_most = 4
size = 6

[[rows]]
kind = "because_of"
title = "Because you saw {title}"
weight = 0.05

[[rows]]
kind = "popular"
title = "Popular now"
"""
_ADJECTIVES = (
    "Quiet",
    "Last",
    "Second",
    "Silver",
    "Long",
    "Open",
    "Lost",
    "Early",
    "Paper",
    "Northern",
    "Hidden",
    "Slow",
)
_NOUNS = {"Comedy": "Wedding", "Drama": "Letter", "Horror": "Cellar", "Western": "Trail"}
_START_MS = 1_750_000_000_000


def titles() -> Catalogue:
    """The items: a dozen of each genre, of 1960 to 2010."""
    return Catalogue(_item(genre, number) for genre in GENRES for number in range(TITLES_EACH))


def _item(genre: str, number: int) -> Item:
    attributes = {"genres": [genre], "year": 1960 + 5 * ((number * 7) % 11)}
    return Item(f"{genre.lower()}-{number}", f"The {_ADJECTIVES[number]} {_NOUNS[genre]}", attributes)


def plays(num_members: int = 80, num_each: int = 30, seed: int = 0) -> pa.Table:
    """Members who stay with a genre, and change it at every sixth play or so."""
    return plays_table(sorted(_rows(num_members, num_each, seed), key=lambda row: row.ts_ms))


def _rows(num_members: int, num_each: int, seed: int) -> Iterator[PlayRow]:
    random_ = random.Random(seed)
    for member in range(num_members):
        genre, at_ms = random_.choice(GENRES), _START_MS + member * 1000
        for number in range(num_each):
            genre = random_.choice(GENRES) if random_.random() < 1 / 6 else genre
            at_ms += random_.choice((300_000, 300_000, 7_200_000))
            item = f"{genre.lower()}-{random_.randrange(TITLES_EACH)}"
            yield PlayRow(event_id=f"learnt-{member}-{number}", user_id=f"learnt-{member}", item_id=item, ts_ms=at_ms)


def train_bundle(settings: Settings, folder: Path, seed: int) -> str:
    """Trains for some seconds, and puts a bundle into the store. Returns its version."""
    config = TrainConfig(epochs=6, learning_rate=1e-2, intent_weight=0.5, batch_windows=16, seed=seed)
    size = ModelConfig(width=16, num_heads=2, num_layers=1, intent_width=8, dropout=0.0)
    table = plays()
    model = intentrec.fit(table, titles(), domain=settings.domain, config=config, model_config=size, device="cpu")
    built = build_bundle(folder, model, table)
    BundleStore(settings.bundle_url, settings.cache_dir).publish(built.ref)
    return built.ref.version
