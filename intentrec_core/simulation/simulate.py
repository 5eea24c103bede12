"""A simulated world: members whose hidden intents switch by a known Markov process. It supplies what real data lacks,
and load for tests.

The same options always give the same plays. The hidden intent of each play is returned next to the play and is not part
of it. With ``informative=False`` the same members play the same items at the same times, but everything that reveals an
intent (action, duration, episode; genre, format, release date and other catalogue attributes) is random: any gain of
the intent stage in such a world does not come from intents.

Memory does not grow with the number of plays: 4 bytes per member, SLOT_BYTES (216) for each member who played within
the last 30 days of event time, ACTIVE_BYTES (56) for each running session, and one tick of about 4,096 plays. Items
take no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intentrec_core.errors import ConfigError
from intentrec_core.features.catalogue import Item
from intentrec_core.plays.table import PLAYS, PlayRow
from intentrec_core.simulation.items import DAY_S, NEW_ITEMS_DAYS, NUM_SLOTS, REGIONS, Items
from intentrec_core.simulation.members import SimulatedMembers
from intentrec_core.simulation.random_streams import Draws, Ints, Stream, slice_int, slice_unit
from intentrec_core.simulation.script import Move, WorldScript, script
from intentrec_core.simulation.sessions import MAX_TICK_S, Sessions, mean_session_plays

START_MS = 1_704_067_200_000
"""2024-01-01 in UTC."""

LATEST_END_MS = 1_767_225_600_000
"""2026-01-01 in UTC: :func:`start_in_the_past` lets no world end after it."""

PLAYS_PER_DAY = 4.0
"""Plays per day and member, on average, when no rate is given."""


def start_in_the_past(num_plays: int, users: int, rate: float | None = None) -> int:
    """When a world of so many plays begins, so that it is over by now: in 2024, or in the latest year that is early enough.

    It reads no clock, so the same options give the same plays at any time. Arrivals are random, and a quarter more time is
    allowed for them; :class:`World` stops at its ``end_ms`` whatever they are.

    Raises: ConfigError when no year from 1990 on is early enough.
    """
    rate_s = users * PLAYS_PER_DAY / DAY_S if rate is None else rate
    if not rate_s > 0:
        return START_MS  # World says what is wrong with it
    lasts_ms = 1000.0 * (1.25 * num_plays / rate_s + 30 * DAY_S)
    for year in range(2024, 1989, -1):
        start_ms = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1000
        if start_ms + lasts_ms <= LATEST_END_MS:
            return start_ms
    years = num_plays / rate_s / (365.25 * DAY_S)
    raise ConfigError(
        f"{num_plays:,} plays of {users:,} members last {years:,.0f} years of event time; allowed: 28, since 1990; "
        "take more users, a higher event rate, or fewer plays"
    )


class SimulatedPlay(NamedTuple):
    """A play, and the member's hidden intent at it."""

    play: PlayRow
    hidden_intent: str


class World:
    """One simulated world.

    ``rate`` is in plays per second of event time, over all members (None: 4 plays per day and member). The caller
    decides how fast the plays are sent. The world ends before ``end_ms`` (None: never).

    Raises: ConfigError with the option, the value and the allowed range.
    """

    def __init__(
        self,
        domain_name: str,
        users: int = 1000,
        items: int = 2000,
        seed: int = 0,
        rate: float | None = None,
        *,
        informative: bool = True,
        start_ms: int = START_MS,
        end_ms: int | None = None,
    ) -> None:
        self.script: WorldScript = script(domain_name)
        _check("users", users, 1, 2**31 - 1)
        _check("items", items, 2 * NUM_SLOTS, 2**31 - 1)
        most = users * _most_plays_per_s(self.script)
        self.rate = users * PLAYS_PER_DAY / DAY_S if rate is None else rate
        if not 0 < self.rate <= most:
            raise ConfigError(
                f"rate {self.rate:g} plays per second of event time is impossible with {users:,} members; "
                f"allowed: above 0, at most {most:.3g}; or raise users"
            )
        self.domain_name, self.users, self.seed, self.start_ms = domain_name, users, seed, start_ms
        self.informative = informative
        self.end_ms = end_ms
        self.dropped_sessions = 0
        self.has_ended = False
        self._draws = Draws(seed)
        self.items = Items(self.script, self._draws, items, start_ms // 1000, informative=informative)
        self.members = SimulatedMembers(self.script, self._draws, users)

    @property
    def intents(self) -> tuple[str, ...]:
        """Names of the hidden intents, in the order of all tables here."""
        return self.script.intents

    def catalogue(self, until_ms: int | None = None) -> Iterator[Item]:
        """Items released before ``until_ms`` (None: all items there will ever be), computed on demand."""
        until_s = self.items.start_s + DAY_S * (NEW_ITEMS_DAYS + 1) if until_ms is None else until_ms / 1000.0
        return self.items.catalogue(until_s)

    def transition(self, user: int) -> NDArray[np.float64]:
        """The Markov process of one member: P[i, j] is the probability that intent j follows intent i within a session.

        Shapes: f64[H, H].
        """
        intents = np.arange(self.script.num_intents)
        return self.members.transition(np.full(len(intents), user, dtype=np.int64), intents)

    def sessions(self, max_tick_s: float = MAX_TICK_S) -> Sessions:
        """The world's members at its start, to be advanced tick by tick."""
        return Sessions(
            self.script,
            self._draws,
            self.items,
            self.members,
            start_ms=self.start_ms,
            sessions_per_s=self.rate / mean_session_plays(self.script),
            max_tick_s=max_tick_s,
        )

    def batches(self, num_plays: int | None = None) -> Iterator[PlayBatch]:
        """The world's plays from its start, in event-time order, some 4,096 at a time: until the world ends, or ``num_plays``
        in total.

        Every call starts again and returns the same plays.
        """
        sessions, done = self.sessions(), 0
        while num_plays is None or done < num_plays:
            if self.end_ms is not None and sessions.now_ms >= self.end_ms:
                self.has_ended = True
                return
            records = sessions.tick()
            if self.end_ms is not None:
                records = records[records["due_ms"] < self.end_ms]
            if num_plays is not None:
                records = records[: num_plays - done]
            if len(records):
                yield PlayBatch(self, records, done)
            done += len(records)

    def plays(self, num_plays: int | None = None) -> Iterator[SimulatedPlay]:
        """The same plays one by one."""
        for batch in self.batches(num_plays):
            yield from batch

    def table(self, num_plays: int) -> tuple[pa.Table, list[str]]:
        """The first plays as one table of schema PLAYS, and their hidden intents. This method holds all of them in
        memory.
        """
        batches = list(self.batches(num_plays))
        tables = [batch.table() for batch in batches] or [PLAYS.empty_table()]
        return pa.concat_tables(tables), [name for batch in batches for name in batch.hidden_intents()]


class PlayBatch:
    """Consecutive plays of a world, as columns. ``first`` is the running number of the first play."""

    def __init__(self, world: World, records: NDArray[np.void], first: int) -> None:
        self._world, self._records, self._first = world, records, first

    def __len__(self) -> int:
        return len(self._records)

    def hidden_intents(self) -> list[str]:
        """The hidden intent of each play."""
        names = self._world.intents
        return [names[i] for i in self._records["intent"].tolist()]

    def __iter__(self) -> Iterator[SimulatedPlay]:
        columns = self._columns()
        contexts = map(dict, self._contexts())
        plays = map(PlayRow, *columns, contexts)
        return map(SimulatedPlay, plays, self.hidden_intents())

    def table(self) -> pa.Table:
        """The plays in schema PLAYS."""
        return pa.table(
            [pa.array(c, f.type) for c, f in zip([*self._columns(), list(self._contexts())], PLAYS, strict=True)],
            schema=PLAYS,
        )

    def _columns(self) -> list[list[Any]]:
        """All columns of PLAYS except the context."""
        world, records = self._world, self._records
        prefix, users = world.script.item_prefix, records["user"].tolist()
        started = (records["start_ms"] // 1000).tolist()
        return [
            [f"{world.seed:x}-{number:x}" for number in range(self._first, self._first + len(records))],
            [f"u{user}" for user in users],
            [f"{prefix}{item}" for item in records["item"].tolist()],
            records["due_ms"].tolist(),
            self._actions(),
            self._durations_s(),
            [f"u{user}-{start:x}" for user, start in zip(users, started, strict=True)],
        ]

    def _disguise(self, which: int) -> NDArray[np.uint64]:
        return self._world._draws.bits(Stream.DISGUISE, self._records["key"], self._records["number"], which)

    def _actions(self) -> list[str]:
        names = self._world.script.actions
        if not self._world.informative:
            return [names[i] for i in (slice_unit(self._disguise(0), 0, 16) * len(names)).astype(int).tolist()]
        table, records = self._world.script.move_actions, self._records
        pairs = zip(records["move"].tolist(), records["stage"].tolist(), strict=True)
        return [table[move][min(max(stage - 2, 0), len(table[move]) - 1)] for move, stage in pairs]

    def _durations_s(self) -> list[float]:
        if self._world.informative:
            return self._records["watched_s"].tolist()
        return np.round(15 + 5000 * slice_unit(self._disguise(1), 0, 24)).tolist()

    def _contexts(self) -> Iterator[list[tuple[str, str]]]:
        """Key-value pairs of each play's context."""
        world, records = self._world, self._records
        users: Ints = records["user"].astype(np.int64)
        regions = [REGIONS[i] for i in world.members.region(users).tolist()]
        device = (slice_unit(records["key"], 0, 16) ** 1.5 * len(world.script.devices)).astype(int).tolist()
        devices = [world.script.devices[i] for i in device]
        if not world.script.only_trait_advances:
            return ([("country", r), ("device", d)] for r, d in zip(regions, devices, strict=True))
        limits = [str(limit) for limit in world.members.max_maturity(users).tolist()]
        episodes = map(str, self._episodes().tolist())
        shown = zip(regions, limits, devices, episodes, strict=True)
        return ([("region", r), ("max_maturity", m), ("device", d), ("episode", e)] for r, m, d, e in shown)

    def _episodes(self) -> Ints:
        """Episode of a show, 1 for a movie. A repeat can be any episode."""
        if not self._world.informative:
            return 1 + slice_int(self._disguise(2), 0, 4)
        records = self._records
        traits = self._world.items.traits(records["item"].astype(np.int64))
        any_episode = 1 + (slice_unit(records["key"], 20, 16) * traits.length()).astype(np.int64)
        again = (records["move"] == Move.REPEAT) & traits.trait()
        return np.where(again, any_episode, records["stage"].astype(np.int64))


def _most_plays_per_s(tables: WorldScript) -> float:
    """Half of the rate at which a member could play without a break: play, pause, and the gap between sessions."""
    plays = mean_session_plays(tables)
    return 0.5 * plays / (plays * (tables.play_s + tables.idle_s) + tables.gap_s)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; allowed: {low:,} to {high:,}")
