"""Plays for the tiny world, as a table at rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from intentrec_core.history.history import EventLayout, History
from intentrec_core.plays.table import PlayRow, plays_table, sort_plays
from tests.worlds.tiny_world import START_MS


def row(user: int, item: int, at_s: float, *, event: str | None = None) -> PlayRow:
    """One play, ``at_s`` seconds after the world began."""
    return PlayRow(
        event_id=event or f"{user}-{item}-{at_s}",
        user_id=f"user-{user}",
        item_id=f"item-{item}",
        ts_ms=START_MS + int(at_s * 1000),
        duration_s=None if item % 4 == 0 else 30.0 * item,
        context={"device": ("tv", "phone", "fridge")[item % 3], "max_maturity": "3"},
    )


def random_plays(*, members: int, plays: int, items: int = 34, seed: int = 0) -> pa.Table:
    """Plays of random items (the last ones unknown to the world) at random times, many of them equal."""
    random = np.random.default_rng(seed)
    drawn = zip(random.integers(members, size=plays), random.integers(items, size=plays), strict=True)
    times = np.sort(random.integers(0, 40 * plays, size=plays)).tolist()
    rows = [row(int(u), int(i), t, event=f"e{k}") for k, ((u, i), t) in enumerate(zip(drawn, times, strict=True))]
    return plays_table(rows)


def cycling_plays(*, members: int, plays: int, items: int = 10, apart: int = 1) -> pa.Table:
    """Every member plays the items in a circle, from places ``apart`` of each other: what comes next can be learned."""
    rows = [
        row(u, (apart * u + k) % items, 60.0 * k + u, event=f"{u}-{k}") for u in range(members) for k in range(plays)
    ]
    return sort_plays(plays_table(rows))


def watched_hashes(history: History, layout: EventLayout) -> list[int]:
    """Item hashes of the last w plays, oldest first."""
    evicted = np.frombuffer(history.evicted_items, dtype="<u8").tolist()
    hashes = evicted + history.view(layout)["item_hash"].tolist()
    return hashes[-layout.watched :] if layout.watched else []


def served_histories(layout: EventLayout, plays: Sequence[PlayRow]) -> list[tuple[bytes, set[int]]]:
    """For each play of one member, what a worker holds right before it: the context's bytes and the watched item hashes."""
    history, held = History(), []
    for offset, play in enumerate(plays):
        watched = set(watched_hashes(history, layout)) if history.count else set()
        held.append((bytes(history.events), watched))
        packed = layout.pack(
            item_id=play.item_id,
            event_id=play.event_id,
            ts_ms=play.ts_ms,
            duration_s=play.duration_s,
            attributes={"action": play.action, **(play.context or {})},
        )
        history.apply(layout, packed, offset)
    return held
