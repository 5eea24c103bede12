"""Sessions of a simulated world: members arrive, play one item after another, and leave.

Time advances in ticks. In memory are the running sessions (ACTIVE_BYTES each, with the play in progress) and the recent
plays of recently active members. A tick's plays are returned when it ends.

Shapes: N plays of a tick.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.simulation.choice import Choice, Moment
from intentrec_core.simulation.items import DAY_S, Items
from intentrec_core.simulation.members import FORGET_S, PEAK_ACTIVITY, Memory, SimulatedMembers
from intentrec_core.simulation.random_streams import Bits, Draws, Floats, Ints, Stream, derive, pick
from intentrec_core.simulation.script import WorldScript

ACTIVE_DTYPE = np.dtype(
    [
        ("user", "i4"),
        ("slot", "i4"),
        ("key", "u8"),
        ("start_ms", "i8"),
        ("due_ms", "i8"),  # when the play in progress ends and is reported
        ("number", "i4"),
        ("item", "i4"),
        ("watched_s", "f4"),
        ("stage", "i2"),
        ("intent", "i1"),
        ("move", "i1"),
        ("kept", "i1"),
    ],
    align=True,
)
ACTIVE_BYTES = ACTIVE_DTYPE.itemsize

TARGET_PLAYS = 4096
#: A member starts at most one session per tick, so a tick is short compared with a day, at any rate.
MAX_TICK_S = 3 * 3600.0
MAX_ROUNDS = 40
MAX_IDLE = 4.0
_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Started:
    """Sessions that begin. Shapes: [N], members all different."""

    members: Ints
    start_ms: Ints


class Sessions:
    """The sessions of all members, in event-time order. ``dropped`` counts arrivals for which no idle member was found."""

    def __init__(
        self,
        script: WorldScript,
        draws: Draws,
        items: Items,
        members: SimulatedMembers,
        *,
        start_ms: int,
        sessions_per_s: float,
        max_tick_s: float = MAX_TICK_S,
    ) -> None:
        self.script, self.members = script, members
        self.memory = Memory(members.num_members)
        self.now_ms = start_ms
        self.dropped = 0
        self._draws = draws
        self._choice = Choice(script, draws, items, members)
        self._sessions_per_s = sessions_per_s
        tick_s = min(max_tick_s, max(1.0, TARGET_PLAYS / (sessions_per_s * mean_session_plays(script))))
        self._tick_ms = int(1000 * tick_s)
        self._active = np.zeros(0, dtype=ACTIVE_DTYPE)
        self._due_arrivals = 0.0
        self._num_drawn = 0
        self._forgot_ms = start_ms

    @property
    def nbytes(self) -> int:
        """Bytes held between ticks."""
        return int(self._active.nbytes) + self.memory.nbytes

    @property
    def num_active(self) -> int:
        """Number of running sessions."""
        return len(self._active)

    def tick(self) -> NDArray[np.void]:
        """The plays that end within the next tick, by event time. Shape: ACTIVE_DTYPE[N]."""
        end_ms = self.now_ms + self._tick_ms
        self._open(self._arrivals(end_ms))
        ended = []
        while len(due := np.flatnonzero(self._active["due_ms"] < end_ms)):
            ended.append(self._finish_plays(due))
        self._active = self._active[self._active["due_ms"] < _NEVER]
        if end_ms - self._forgot_ms > DAY_S * 1000:
            self.memory.forget(end_ms - FORGET_S * 1000, self._active["slot"].astype(np.int64))
            self._forgot_ms = end_ms
        self.now_ms = end_ms
        plays = np.concatenate(ended) if ended else np.zeros(0, dtype=ACTIVE_DTYPE)
        return plays[np.argsort(plays["due_ms"], kind="stable")]

    def _arrivals(self, end_ms: int) -> Started:
        """Members who begin a session in this tick: by activity, subscribed, not in a session, none for a session gap."""
        self._due_arrivals += self._sessions_per_s * by_hour(self.now_ms + self._tick_ms / 2) * self._tick_ms / 1000.0
        wanted = int(self._due_arrivals)
        self._due_arrivals -= wanted
        members, starts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        for _ in range(MAX_ROUNDS):
            missing = wanted - len(members)
            if missing <= 0:
                break
            counter = self._num_drawn + np.arange(5 * missing + 16)  # about one in four is taken
            self._num_drawn += len(counter)
            who = self._draws.below(self.members.num_members, Stream.ARRIVAL_USER, counter)
            offset = self._draws.uniform(Stream.ARRIVAL_TIME, counter) * self._tick_ms
            when = self.now_ms + offset.astype(np.int64)
            chance = self._draws.uniform(Stream.ARRIVAL_ACCEPT, counter) * PEAK_ACTIVITY
            fits = (chance < self.members.activity(who)) & self.members.subscribed(who, when / 1000.0)
            fits &= self.memory.last_ms(who) + int(1000 * self.script.gap_s) < when
            fits &= ~np.isin(who, members)
            rows = np.flatnonzero(fits)
            rows = np.sort(rows[np.unique(who[rows], return_index=True)[1]])[:missing]
            members, starts = np.concatenate([members, who[rows]]), np.concatenate([starts, when[rows]])
        self.dropped += wanted - len(members)
        return Started(members, starts)

    def _open(self, started: Started) -> None:
        members = started.members
        if not len(members):
            return
        slots = self.memory.take(members)
        self.memory.slots["last_ms"][slots] = _NEVER  # busy
        opened = np.zeros(len(members), dtype=ACTIVE_DTYPE)
        opened["user"], opened["slot"], opened["start_ms"] = members, slots, started.start_ms
        opened["key"] = self._draws.bits(Stream.SESSION, members, started.start_ms)
        previous = self.memory.slots["intent"][slots].astype(np.int64)
        weights = self.members.opening(members, previous, started.start_ms / 1000.0)
        words = self._draws.bits(Stream.PLAY, opened["key"], opened["number"])
        opened["intent"] = pick(weights, derive(words, Stream.INTENT))
        self._begin_plays(opened, started.start_ms, words)
        idle = opened["due_ms"] == _NEVER
        self.memory.slots["last_ms"][slots[idle]] = started.start_ms[idle]
        self._active = np.concatenate([self._active, opened])

    def _finish_plays(self, due: Ints) -> NDArray[np.void]:
        """Returns the plays that have ended, records them in memory, and begins the next play of each session that
        continues.
        """
        ended = self._active[due]
        slots = self.memory.slots[ended["slot"]]
        self._choice.remember(slots, ended)
        self.memory.slots[ended["slot"]] = slots
        members, intents = ended["user"].astype(np.int64), ended["intent"].astype(np.int64)
        following = ended.copy()
        following["number"] += 1
        words = self._draws.bits(Stream.PLAY, ended["key"], following["number"])
        stays = derive(words, Stream.STAY) < self.script.stay[intents]
        following["intent"] = pick(self.members.transition(members, intents), derive(words, Stream.INTENT))
        idle_s = -np.log(1.0 - derive(words, Stream.IDLE))
        idle_ms = (1000.0 * self.script.idle_s * np.minimum(idle_s, MAX_IDLE)).astype(np.int64)
        rows = np.flatnonzero(stays)
        staying = following[rows]
        self._begin_plays(staying, (ended["due_ms"] + idle_ms)[rows], words[rows])
        following[rows] = staying
        following["due_ms"][~stays] = _NEVER
        gone = following["due_ms"] == _NEVER
        self.memory.slots["last_ms"][ended["slot"][gone]] = ended["due_ms"][gone]
        self._active[due] = following
        return ended

    def _begin_plays(self, sessions: NDArray[np.void], start_ms: Ints, words: Bits) -> None:
        """Chooses the next play of each session, in place. A session without an allowed item ends."""
        if not len(sessions):
            return
        moment = Moment(
            sessions["user"].astype(np.int64),
            self.memory.slots[sessions["slot"]],
            sessions["intent"].astype(np.int64),
            start_ms / 1000.0,
            words,
        )
        chosen = self._choice.choose(moment)
        for name in ("item", "move", "stage", "kept", "watched_s"):
            sessions[name] = getattr(chosen, name)
        sessions["due_ms"] = np.where(chosen.item >= 0, start_ms + (1000 * chosen.watched_s).astype(np.int64), _NEVER)


def by_hour(at_ms: float) -> float:
    """How many sessions begin at this time of the day, relative to the mean."""
    return 1.0 + 0.5 * float(np.cos(2 * np.pi * (at_ms / 3_600_000 % 24 - 20.0) / 24.0))


def mean_session_plays(script: WorldScript) -> float:
    """Expected number of plays of a session, over members and their first intents: L = (I - diag(stay) P)^-1 1."""
    total, num = 0.0, script.num_intents
    for archetype in script.archetypes:
        for own in np.eye(num):
            first: Floats = 0.75 * archetype + 0.25 * own
            transition = 0.75 * script.switch + 0.25 * first[None, :]
            lengths = np.linalg.solve(np.eye(num) - script.stay[:, None] * transition, np.ones(num))
            total += float(first @ lengths)
    return total / (len(script.archetypes) * num)
