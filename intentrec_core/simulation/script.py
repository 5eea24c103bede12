"""The tables of a simulated world for each domain: how hidden intents behave. This module contains no behaviour itself.

A member has a hidden intent at every play. The intent decides how the play relates to earlier ones, where the item
comes from, how long it takes, and which intents can follow. Hidden intents are not the labels that a domain declares:
action type, genre and release date are observable traces of them.

Shapes: H hidden intents, A archetypes of members, M moves, G genres.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from intentrec_core.errors import ConfigError

Table = NDArray[np.float64]


class Move(IntEnum):
    """How a play relates to the member's earlier plays."""

    NEW = 0
    ADVANCE = 1  # the next episode of an item in progress; the next step of a purchase
    REPEAT = 2  # an item that was finished earlier
    GLANCE = 3  # a look at a new item, which is not in progress afterwards


class Pool(IntEnum):
    """The genre that a new item is taken from."""

    FAVOURITE = 0
    ANY = 1
    AUDIENCE = 2  # the genres of a special audience (kids)
    SAME = 3  # the genre of the last item


@dataclass(frozen=True, kw_only=True)
class WorldScript:
    """The tables of one domain. Rows are hidden intents unless stated otherwise.

    ``switch`` B: f64[H, H], rows sum to 1; ``archetypes`` f64[A, H]; ``moves`` f64[H, 4]; ``stay``: probability that
    the session continues; ``keep``: probability that a new item is in progress afterwards; ``newness`` and ``trait``:
    the worth of a new release, and of an item with the trait, to the intent; ``watch``: lowest and highest share of the
    running time that is watched. ``play_s`` is the mean duration of a play, ``idle_s`` that of the pause between plays,
    ``gap_s`` the shortest time between two sessions.
    """

    intents: tuple[str, ...]
    switch: Table
    archetype_names: tuple[str, ...]
    archetypes: Table
    moves: Table
    pools: tuple[Pool, ...]
    stay: Table
    keep: Table
    newness: Table
    trait: Table
    watch: Table
    genres: tuple[str, ...]
    genre_slots: tuple[int, ...]
    audience: tuple[str, ...]
    audience_intents: tuple[str, ...]
    trait_share: Table
    only_trait_advances: bool
    actions: tuple[str, ...]
    move_actions: tuple[tuple[str, ...], ...]
    devices: tuple[str, ...]
    play_s: float
    idle_s: float
    gap_s: float
    item_prefix: str

    @property
    def num_intents(self) -> int:
        """H: the number of hidden intents."""
        return len(self.intents)

    def genre_mask(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """The genres that are in ``names``. Shape: bool[G]."""
        return np.array([genre in names for genre in self.genres])


def script(domain_name: str) -> WorldScript:
    """The tables of a domain.

    Raises: ConfigError for a domain without tables.
    """
    if domain_name not in SCRIPTS:
        raise ConfigError(f"no simulated world for domain {domain_name!r}: choose one of {', '.join(SCRIPTS)}")
    return SCRIPTS[domain_name]


def _table(*rows: object) -> Table:
    table = np.array(rows, dtype=np.float64)
    table.setflags(write=False)
    return table


VIDEO = WorldScript(
    intents=("discover", "continue", "rewatch", "browse", "kids"),
    switch=_table(
        [0.52, 0.30, 0.03, 0.13, 0.02],
        [0.08, 0.80, 0.05, 0.05, 0.02],
        [0.10, 0.05, 0.70, 0.13, 0.02],
        [0.40, 0.10, 0.08, 0.40, 0.02],
        [0.03, 0.05, 0.02, 0.02, 0.88],
    ),
    archetype_names=("explorer", "binger", "comforter", "family", "zapper"),
    archetypes=_table(
        [0.65, 0.15, 0.02, 0.17, 0.01],
        [0.15, 0.75, 0.05, 0.04, 0.01],
        [0.10, 0.15, 0.65, 0.09, 0.01],
        [0.15, 0.20, 0.05, 0.05, 0.55],
        [0.25, 0.08, 0.05, 0.60, 0.02],
    ),
    moves=_table(  # new, advance, repeat, glance
        [0.88, 0.04, 0.02, 0.06],
        [0.10, 0.88, 0.01, 0.01],
        [0.10, 0.05, 0.84, 0.01],
        [0.15, 0.02, 0.01, 0.82],
        [0.25, 0.50, 0.22, 0.03],
    ),
    pools=(Pool.FAVOURITE, Pool.FAVOURITE, Pool.FAVOURITE, Pool.ANY, Pool.AUDIENCE),
    stay=_table(0.60, 0.74, 0.55, 0.85, 0.78),
    keep=_table(0.60, 0.95, 0.50, 0.30, 0.80),
    newness=_table(2.5, 0.5, 0.0, 1.0, 0.2),
    trait=_table(0.0, 3.0, 0.0, 0.0, 1.0),
    watch=_table([0.60, 1.00], [0.90, 1.00], [0.80, 1.00], [0.01, 0.10], [0.70, 1.00]),
    genres=(
        *("Action", "Animation", "Anime", "Comedy", "Crime", "Documentary", "Drama", "Family"),
        *("Fantasy", "Horror", "Kids", "Music", "Reality", "Romance", "Sci-Fi", "Thriller"),
    ),
    genre_slots=(3, 1, 1, 4, 2, 2, 4, 1, 1, 1, 2, 1, 2, 2, 2, 3),
    audience=("Animation", "Family", "Kids"),
    audience_intents=("kids",),
    trait_share=_table(0.3, 0.5, 0.85, 0.5, 0.6, 0.3, 0.5, 0.3, 0.5, 0.2, 0.7, 0.1, 1.0, 0.3, 0.5, 0.4),  # shows
    only_trait_advances=True,
    actions=("discover", "continue", "rewatch", "browse"),
    move_actions=(("discover",), ("continue",), ("rewatch",), ("browse",)),
    devices=("tv", "phone", "tablet", "laptop"),
    play_s=1700.0,
    idle_s=60.0,
    gap_s=7200.0,
    item_prefix="v",
)

SHOP = WorldScript(
    intents=("explore", "compare", "buy", "replenish", "bargain"),
    switch=_table(
        [0.60, 0.22, 0.06, 0.02, 0.10],
        [0.10, 0.62, 0.22, 0.01, 0.05],
        [0.12, 0.10, 0.70, 0.04, 0.04],
        [0.15, 0.05, 0.05, 0.72, 0.03],
        [0.10, 0.10, 0.12, 0.02, 0.66],
    ),
    archetype_names=("window-shopper", "researcher", "decider", "regular", "bargain-hunter"),
    archetypes=_table(
        [0.70, 0.14, 0.04, 0.02, 0.10],
        [0.20, 0.60, 0.14, 0.02, 0.04],
        [0.20, 0.20, 0.50, 0.06, 0.04],
        [0.14, 0.06, 0.10, 0.66, 0.04],
        [0.12, 0.10, 0.08, 0.02, 0.68],
    ),
    moves=_table(
        [0.70, 0.02, 0.01, 0.27],
        [0.80, 0.08, 0.02, 0.10],
        [0.15, 0.80, 0.02, 0.03],
        [0.12, 0.08, 0.78, 0.02],
        [0.78, 0.12, 0.02, 0.08],
    ),
    pools=(Pool.ANY, Pool.SAME, Pool.FAVOURITE, Pool.FAVOURITE, Pool.FAVOURITE),
    stay=_table(0.82, 0.88, 0.80, 0.65, 0.84),
    keep=_table(0.15, 0.50, 0.90, 0.60, 0.45),
    newness=_table(1.5, 0.2, 0.2, 0.0, 0.0),
    trait=_table(0.0, 0.0, 0.0, 0.0, 3.0),
    watch=_table([0.1, 0.6], [0.3, 1.0], [0.2, 0.8], [0.1, 0.3], [0.1, 0.7]),
    genres=(
        *("audio", "bags", "beauty", "books", "cameras", "computers", "fashion", "garden"),
        *("grocery", "kitchen", "office", "pets", "phones", "shoes", "sports", "toys"),
    ),
    genre_slots=(1, 1, 2, 3, 1, 2, 4, 1, 4, 3, 1, 1, 2, 2, 2, 2),
    audience=(),
    audience_intents=(),
    trait_share=_table(*[0.25] * 16),  # on offer
    only_trait_advances=False,
    actions=("click", "cart", "purchase"),
    move_actions=(("click",), ("cart", "purchase"), ("purchase",), ("click",)),
    devices=("phone", "tablet", "laptop"),
    play_s=35.0,
    idle_s=12.0,
    gap_s=1800.0,
    item_prefix="p",
)

SCRIPTS = {"video": VIDEO, "shop": SHOP}
