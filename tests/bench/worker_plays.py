"""The world of the worker's bench without Kafka: domain, items, members' earlier plays, and their plays now.

MovieLens' shape: the shipped domain with a longer window, 10,000 titled items played by a power law, a rating a
play. MemberPlays'
contexts are full from the beginning: each has played between n + 1 and 2n items before the first play of the log. Needs
intentrec_core alone, so that baselines in an environment of their own can use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

import intentrec_core
from intentrec_core.domain.spec import Domain
from intentrec_core.domain.toml import parse_domain
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.history.history import EventLayout, History, hash64
from intentrec_core.model.config import ModelConfig

#: n: contexts hold n + 1 to 2n plays, 256 in the mean.
WINDOW = 170
NUM_ITEMS, NUM_ACTIVE = 10_000, 1_000
MODEL = ModelConfig(width=128, num_heads=4, num_layers=2)
#: The log's first play; a member's plays are a minute apart, so that an hour's short-term window holds sixty.
START_MS, EVERY_MS = 1_600_000_000_000, 60_000
#: Items are drawn by a power law: rank ** -1.
_CUMULATIVE = np.cumsum(1.0 / np.arange(1, NUM_ITEMS + 1))


def domain_text() -> str:
    """The shipped MovieLens domain with the bench's window."""
    shipped = (Path(intentrec_core.__file__).parent / "domain" / "movielens.toml").read_text()
    return shipped.replace("window = 64", f"window = {WINDOW}")


def load_domain() -> Domain:
    """The same, parsed."""
    domain = parse_domain(domain_text(), "movielens.toml")
    assert domain.window == WINDOW
    return domain


def catalogue(domain: Domain) -> Catalogue:
    """Titled items with genres and years."""
    genres = domain.multi_fields[0].values
    return Catalogue(
        Item(
            f"movie-{i}",
            f"A Film of Some Title, Part {i} (19{60 + i % 39})",
            {"genres": [genres[i % len(genres)], genres[i // 7 % len(genres)]], "year": 1960 + i % 39},
        )
        for i in range(NUM_ITEMS)
    )


def past(layout: EventLayout, number: int, num_plays: int | None = None) -> bytes:
    """What member ``number`` played before the log began, packed: the same at every call; n + 1 to 2n plays unless given."""
    rng = np.random.default_rng(number)
    num = num_plays or int(rng.integers(WINDOW + 1, 2 * WINDOW + 1))
    events = np.zeros(num, dtype=layout.dtype)
    events["item_hash"] = _ITEM_HASHES[_items(rng, num)]
    events["event_hash"] = rng.integers(1 << 63, size=num, dtype=np.uint64)
    events["ts_ms"] = START_MS - EVERY_MS * np.arange(num, 0, -1)
    events["duration_s"] = -1.0
    events["rating"] = rng.integers(1, 6, size=num)
    return events.tobytes()


def history(layout: EventLayout, number: int, num_plays: int | None = None) -> History:
    """The same as a worker holds it, as of the partition's first record."""
    held = History()
    held.events = past(layout, number, num_plays)
    held.count, held.last_offset = len(held.events) // layout.size, 0
    return held


def user_id(number: int) -> str:
    """Of member ``number``; the first ones play."""
    return f"user-{number}"


def plays(num: int, *, num_active: int = NUM_ACTIVE, first: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the log's plays ``first`` to ``first + num``, members in random order."""
    rng, encode = np.random.default_rng(first), msgspec.json.Encoder().encode
    members, items = rng.integers(num_active, size=num).tolist(), _items(rng, num).tolist()
    for number, member, item in zip(range(first, first + num), members, items, strict=True):
        user = user_id(member)
        play = {
            "event_id": f"event-{number:09d}",
            "user_id": user,
            "item_id": f"movie-{item}",
            # A member plays once in ``num_active`` plays of the log.
            "ts": START_MS + number * EVERY_MS // num_active,
            "context": {"rating": str(1 + number % 5)},
        }
        yield user.encode(), encode(play)


def _items(rng: np.random.Generator, num: int) -> np.ndarray:
    return np.searchsorted(_CUMULATIVE, rng.random(num) * _CUMULATIVE[-1])


_ITEM_HASHES = np.array([hash64(f"movie-{i}") for i in range(NUM_ITEMS)], dtype=np.uint64)
