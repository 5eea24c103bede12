"""The items of a simulated world. Every property is computed from the item's number; none is stored.

Genres are assigned to item numbers by a fixed pattern of 32 slots, so items of a genre can be drawn without a list of
them. Within a genre, low numbers are popular. What members like about an item besides its genre (``niche``, ``mood``)
is hidden: it is in no catalogue.

Shapes: every method takes item numbers i64[...] and returns an array of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentrec_core.features.catalogue import Item
from intentrec_core.simulation.random_streams import Draws, Floats, Ints, Stream, slice_int, slice_unit
from intentrec_core.simulation.script import WorldScript

NUM_SLOTS = 32
NUM_NICHES = 4
NUM_MOODS = 8
#: Rank = u ** 2.5, a density of rank ** -0.6: the first of 1,000 items in a genre gets 6 % of its new plays.
POPULARITY_POWER = 2.5

DAY_S = 86_400
NEW_ITEMS_DAYS = 365
OLDEST_DAYS = 9000.0
#: Share of items that are released during the world's first year, not before its start.
LATER_SHARE = 0.15

REGIONS = ("us", "gb", "de", "fr", "br", "in", "jp", "kr")
LANGUAGES = ("en", "en", "de", "fr", "pt", "hi", "ja", "ko")
"""The regions, and the main language of each."""

MATURITIES = np.array([0, 7, 13, 16, 18])
_BATCH = 4096


class Items:
    """Properties of the ``num_items`` items of one seed. ``start_s`` is the start of the world, in seconds since 1970."""

    def __init__(self, script: WorldScript, draws: Draws, num_items: int, start_s: int, *, informative: bool) -> None:
        self.script = script
        self.num_items = num_items
        self.start_s = start_s
        self.informative = informative
        self._draws = draws
        pattern = np.repeat(np.arange(len(script.genres)), script.genre_slots)
        spread = (np.arange(NUM_SLOTS) * 13) % NUM_SLOTS  # 13 and 32 share no factor: a permutation
        self._pattern = pattern[spread]
        self._slots = [np.flatnonzero(self._pattern == genre) for genre in range(len(script.genres))]
        self._slot_counts = np.array([len(slots) for slots in self._slots])
        self._slot_table = np.zeros((len(script.genres), self._slot_counts.max()), dtype=np.int64)
        for genre, slots in enumerate(self._slots):
            self._slot_table[genre, : len(slots)] = slots
        self._audience = script.genre_mask(script.audience)
        self._grim = script.genre_mask(("Horror", "Crime", "Thriller", "Action"))

    def genre(self, items: Ints) -> Ints:
        """The first genre."""
        return np.asarray(self._pattern[items % NUM_SLOTS], dtype=np.int64)

    def in_genre(self, genres: Ints, units: Floats) -> Ints:
        """An item of each genre, popular items more often; ``units`` are uniform in [0, 1)."""
        counts = self._slot_counts[genres]
        rounds = self.num_items // NUM_SLOTS
        rank = (counts * rounds * units**POPULARITY_POWER).astype(np.int64)
        return NUM_SLOTS * (rank // counts) + self._slot_table[genres, rank % counts]

    def for_audience(self, items: Ints) -> NDArray[np.bool_]:
        """Whether the item's genre is for the special audience (kids)."""
        return self._audience[self.genre(items)]

    def traits(self, items: Ints) -> Traits:
        """All properties that members consider when they choose."""
        return Traits(
            self, items, self._draws.bits(Stream.ITEM_TRAITS, items), self._draws.bits(Stream.ITEM_LIFE, items)
        )

    def item_id(self, item: int) -> str:
        """The id of an item number."""
        return f"{self.script.item_prefix}{item}"

    def catalogue(self, until_s: float) -> Iterator[Item]:
        """Items released before ``until_s``, in the order of their numbers, computed a few thousand at a time."""
        for first in range(0, self.num_items, _BATCH):
            numbers = np.arange(first, min(first + _BATCH, self.num_items), dtype=np.int64)
            own = self.traits(numbers)
            shown = own if self.informative else self.traits(self._disguise(numbers))
            released = own.released_s() if self.informative else self._disguised_release(numbers)
            columns = self._columns(own, shown, released)
            titles = self._draws.bits(Stream.ITEM_TITLE, numbers)
            for row in np.flatnonzero(own.released_s() < until_s).tolist():
                attributes = {name: values[row] for name, values in columns.items()}
                name = _title(self.script.item_prefix, int(titles[row]), attributes)
                yield Item(self.item_id(first + row), name, attributes)

    def _disguise(self, items: Ints) -> Ints:
        """The item whose properties the catalogue shows instead, in an uninformative world."""
        return self._draws.below(self.num_items, Stream.ITEM_DISGUISE, items)

    def _disguised_release(self, items: Ints) -> Floats:
        return self.start_s - DAY_S * _age_days(self._draws.uniform(Stream.ITEM_DISGUISE, items, 1))

    def _columns(self, own: Traits, shown: Traits, released_s: Floats) -> dict[str, list[Any]]:
        """Catalogue attributes. Attributes that filters read are always the item's own: a disguise must not show a
        forbidden item.
        """
        names, genre, second = self.script.genres, shown.genre(), shown.second_genre()
        dates = np.datetime_as_string(released_s.astype("datetime64[s]"), unit="D").tolist()
        regions = own.region_mask()
        where = [[r for bit, r in enumerate(REGIONS) if mask >> bit & 1] for mask in regions.tolist()]
        if self.script.item_prefix == "v":
            pairs = zip(genre.tolist(), second.tolist(), strict=True)
            return {
                "genres": [[names[a]] if a == b else [names[a], names[b]] for a, b in pairs],
                "format": ["show" if trait else "movie" for trait in shown.trait().tolist()],
                "released": dates,
                "language": [LANGUAGES[i] for i in shown.language().tolist()],
                "runtime_s": shown.runtime_s().tolist(),
                "episodes": np.where(shown.trait(), shown.length(), 1).tolist(),
                "maturity": MATURITIES[own.maturity()].tolist(),
                "available": own.available().tolist(),
                "regions": where,
            }
        return {
            "category": [names[a] for a in genre.tolist()],
            "price": shown.price().tolist(),
            "on_offer": shown.trait().tolist(),
            "listed": dates,
            "in_stock": own.available().tolist(),
            "ships_to": where,
        }


class Traits:
    """Properties of items, as bits of two 64-bit words per item."""

    def __init__(self, items: Items, numbers: Ints, looks: NDArray[np.uint64], life: NDArray[np.uint64]) -> None:
        self._items, self.numbers, self._looks, self._life = items, numbers, looks, life

    def genre(self) -> Ints:
        """The first genre."""
        return self._items.genre(self.numbers)

    def second_genre(self) -> Ints:
        """The second genre, or the first one again. It depends on the first genre and the niche, so it reveals a little
        about niches.
        """
        genre, niche, total = self.genre(), self.niche(), len(self._items.script.genres)
        return np.where(niche == 0, genre, (genre * 5 + niche * 3) % total)

    def trait(self) -> NDArray[np.bool_]:
        """Video: whether the item is a show and not a movie. Shop: whether it is on offer."""
        share = self._items.script.trait_share[self.genre()]
        return slice_unit(self._looks, 0, 16) < share

    def niche(self) -> Ints:
        """Hidden: the item's kind within its genre. A member likes one kind of each genre."""
        return slice_int(self._looks, 16, 2)

    def mood(self) -> Ints:
        """Hidden: the item's mood. Items of the same mood follow each other."""
        return slice_int(self._looks, 18, 3)

    def language(self) -> Ints:
        """Index into LANGUAGES."""
        own = slice_int(self._looks, 24, 3)
        return np.where(slice_unit(self._looks, 32, 8) < 0.5, 0, own)

    def maturity(self) -> Ints:
        """Index into MATURITIES."""
        level = slice_int(self._looks, 40, 2) + 1 + self._items._grim[self.genre()]
        return np.where(self._items._audience[self.genre()], slice_int(self._looks, 42, 1), np.minimum(level, 4))

    def price(self) -> Floats:
        """Shop: the price in the shop's currency, 3 to about 900, depending on category and item."""
        level = ((self.genre() * 7) % 16) / 16.0
        return np.round(3.0 * np.exp(2.8 * level + 2.9 * slice_unit(self._looks, 44, 16)), 2)

    def released_s(self) -> Floats:
        """Time of release, in seconds since 1970 at midnight UTC."""
        later = slice_unit(self._life, 0, 16) < LATER_SHARE
        unit = slice_unit(self._life, 16, 24)
        days = np.where(later, np.floor(unit * NEW_ITEMS_DAYS), -np.floor(_age_days(unit)))
        return self._items.start_s // DAY_S * DAY_S + DAY_S * days

    def runtime_s(self) -> Ints:
        """Running time of the movie or of one episode, at most 110 minutes (see the video domain's session gap). Shop:
        time of a look.
        """
        if not self._items.script.only_trait_advances:
            return np.full(self.numbers.shape, 90)
        unit = slice_unit(self._life, 40, 8)
        episode = np.where(self._items._audience[self.genre()], 660, np.where(unit < 0.5, 1320, 2700))
        return np.where(
            self.trait(), episode + 60 * slice_int(self._life, 48, 3), 4800 + 60 * (unit * 30).astype(np.int64)
        )

    def length(self) -> Ints:
        """Number of episodes of a show; number of steps of a purchase."""
        if not self._items.script.only_trait_advances:
            return np.full(self.numbers.shape, 3)
        return 4 + slice_int(self._life, 51, 5)

    def region_mask(self) -> Ints:
        """Bit r: may be shown in REGIONS[r]. Seven of eight items may be shown everywhere."""
        mask = slice_int(self._life, 56, 8)
        return np.where(slice_int(self._looks, 61, 3) == 0, mask | 1, 255)

    def available(self) -> NDArray[np.bool_]:
        """Whether the item is available at all; 2 % are not."""
        return slice_unit(self._looks, 8, 8) >= 0.02


def _age_days(unit: Floats) -> Floats:
    """Days since release at the start of the world: one day to 25 years, log-uniform."""
    return np.asarray(np.exp(unit * np.log(OLDEST_DAYS)), dtype=np.float64)


_ADJECTIVES = (
    *("Silent", "Golden", "Broken", "Hidden", "Distant", "Burning", "Second", "Lost", "Paper", "Midnight", "Crimson"),
    *("Gentle", "Electric", "Hollow", "Northern", "Borrowed", "Restless", "Velvet", "Frozen", "Quiet", "Wild", "Last"),
)
_NOUNS = (
    *("Harbour", "Garden", "Promise", "River", "Empire", "Letter", "Winter", "Signal", "Orchard", "Mirror", "Station"),
    *(
        "Kingdom",
        "Daughter",
        "Horizon",
        "Lantern",
        "Machine",
        "Island",
        "Season",
        "Detective",
        "Voyage",
        "Shadow",
        "Tide",
    ),
)
_ENDINGS = ("", "", "", " of Glass", " in the North", " at Noon", " and the Sea", " for Two", " Returns", " of Lisbon")
_MAKERS = (
    "Arden",
    "Boreal",
    "Corvo",
    "Delphi",
    "Ember",
    "Fjord",
    "Garnet",
    "Helio",
    "Iris",
    "Juno",
    "Kestrel",
    "Lumen",
)


def _title(prefix: str, bits: int, attributes: dict[str, Any]) -> str:
    """A readable name. Several items may have the same one, as in real catalogues."""
    adjective, bits = _ADJECTIVES[bits % len(_ADJECTIVES)], bits // len(_ADJECTIVES)
    noun, bits = _NOUNS[bits % len(_NOUNS)], bits // len(_NOUNS)
    if prefix == "v":
        ending, bits = _ENDINGS[bits % len(_ENDINGS)], bits // len(_ENDINGS)
        return f"{'The ' if bits % 3 else ''}{adjective} {noun}{ending}"
    return f"{_MAKERS[bits % len(_MAKERS)]} {adjective} {attributes['category'].capitalize()} {noun}"
