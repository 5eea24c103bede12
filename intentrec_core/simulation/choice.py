"""The behaviour of simulated members: what a member with a given hidden intent plays next, and what is remembered of
it.

Shapes: N plays at a time, of N different members; C candidates per play.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.simulation.items import DAY_S, LANGUAGES, MATURITIES, POPULARITY_POWER, Items
from intentrec_core.simulation.members import CONTACT_WORDS, NUM_FINISHED, SimulatedMembers
from intentrec_core.simulation.random_streams import Bits, Draws, Floats, Ints, Stream, derive, pick, slice_int, spread
from intentrec_core.simulation.script import Move, WorldScript

NUM_CANDIDATES = 6
NUM_SECOND_CANDIDATES = 32
#: The worth of a candidate's properties to the member, in logits: the noise is a standard Gumbel draw.
LIKING = {"niche": 2.0, "mood": 1.5, "language": 1.0, "trait": 0.8, "noise": 0.6}
NEW_DAYS = 45.0
_ONE = np.uint64(1)
_LANGUAGE = np.array([LANGUAGES.index(name) for name in LANGUAGES])


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next plays. Shapes: all [N]. ``item`` is -1 if no item may be shown to the member."""

    item: Ints
    move: Ints
    stage: Ints
    kept: NDArray[np.bool_]
    watched_s: Floats


@dataclass(frozen=True, slots=True)
class Moment:
    """The state in which members choose: member, slot content, hidden intent, time, and the play's random word."""

    members: Ints
    slots: NDArray[np.void]
    intents: Ints
    ts_s: Floats
    words: Bits

    def at(self, rows: Ints) -> Moment:
        """The moments of selected rows."""
        return Moment(*(getattr(self, name)[rows] for name in self.__slots__))


class Choice:
    """The behaviour of one world's members."""

    def __init__(self, script: WorldScript, draws: Draws, items: Items, members: SimulatedMembers) -> None:
        self.script, self.items, self.members = script, items, members
        self._draws = draws
        self._pools = np.array(script.pools)
        self._audience_intents = np.array([name in script.audience_intents for name in script.intents])

    def choose(self, now: Moment) -> Chosen:
        """The next play of every member.

        Cost: O(N · C), in some 20 array operations.
        """
        count = len(now.members)
        item = np.full(count, -1, dtype=np.int64)
        stage = np.ones(count, dtype=np.int64)
        move = pick(self.script.moves[now.intents], derive(now.words, Stream.MOVE))
        recall = derive(now.words, Stream.RECALL)
        for kind, memory in ((Move.ADVANCE, "shows"), (Move.REPEAT, "finished")):
            rows = np.flatnonzero(move == kind)
            if len(rows):
                place = self._recalled(now.at(rows), memory, recall[rows], latest_first=kind is Move.ADVANCE)
                found = place >= 0
                item[rows[found]] = now.slots[memory][rows[found], place[found]]
                if kind is Move.ADVANCE:
                    stage[rows[found]] = now.slots["stages"][rows[found], place[found]]
                move[rows[~found]] = Move.NEW
        rows = np.flatnonzero(item < 0)
        if len(rows):
            item[rows], known = self._discovered(now.at(rows))
            move[rows[known]] = Move.REPEAT
        traits = self.items.traits(np.maximum(item, 0))
        kept = (move == Move.NEW) & (derive(now.words, Stream.KEEP) < self.script.keep[now.intents])
        unit = derive(now.words, Stream.WATCH)
        low, high = self.script.watch[now.intents].T
        part = np.where((move == Move.NEW) & ~kept, 0.2, 1.0) * (low + (high - low) * unit)
        watched_s = np.where(move == Move.GLANCE, 15.0 + 75.0 * unit, np.maximum(10.0, traits.runtime_s() * part))
        return Chosen(item, move, stage, kept, np.round(watched_s).astype(np.float64))

    def remember(self, slots: NDArray[np.void], played: NDArray[np.void]) -> None:
        """Writes finished plays into their members' slots, in place. ``played`` has item, move, stage and kept."""
        item, move = played["item"].astype(np.int64), played["move"]
        slots["last_item"], slots["intent"] = item, played["intent"]
        traits = self.items.traits(item)
        first = np.flatnonzero((move == Move.NEW) | (move == Move.GLANCE))
        for word, bit in self.contact_bits(item[first]):
            slots["contacts"][first, word] |= bit
        may_advance = traits.trait() if self.script.only_trait_advances else np.ones(len(item), dtype=np.bool_)
        begun = np.flatnonzero(played["kept"].astype(np.bool_) & may_advance)
        _to_front(slots, begun, np.full(len(begun), slots["shows"].shape[1] - 1))
        slots["shows"][begun, 0], slots["stages"][begun, 0] = item[begun], 2
        advanced = np.flatnonzero(move == Move.ADVANCE)
        _to_front(slots, advanced, (slots["shows"][advanced] == item[advanced, None]).argmax(axis=1))
        slots["stages"][advanced, 0] += 1
        is_over = played["stage"] >= traits.length()
        over = np.flatnonzero((move == Move.ADVANCE) & is_over)
        for name, empty in (("shows", -1), ("stages", 0)):
            slots[name][over, :-1] = slots[name][over, 1:]
            slots[name][over, -1] = empty
        finished = np.flatnonzero(((move == Move.ADVANCE) & is_over) | (played["kept"].astype(np.bool_) & ~may_advance))
        slots["finished"][finished, slots["num_finished"][finished] % NUM_FINISHED] = item[finished]
        slots["num_finished"][finished] += 1

    def contact_bits(self, items: Ints) -> Iterator[tuple[Ints, Bits]]:
        """The word and the bit of both places of each item in a filter of contacts."""
        hashed = self._draws.bits(Stream.CONTACT, items)
        for first in (0, 32):
            yield (
                slice_int(hashed, first, 32) % CONTACT_WORDS,
                _ONE << slice_int(hashed, first + 8, 6).astype(np.uint64),
            )

    def _recalled(self, now: Moment, memory: str, units: Floats, *, latest_first: bool) -> Ints:
        """The place in a member's memory of an item that suits the audience, -1 for none."""
        held = now.slots[memory].astype(np.int64)
        suits = held >= 0
        if self.script.audience:
            suits &= self.items.for_audience(np.maximum(held, 0)) == self._audience_intents[now.intents][:, None]
        count = suits.sum(axis=1)
        wanted = (units * count).astype(np.int64)
        if latest_first:  # in three of four cases the item played last
            wanted = np.where(units < 0.75, 0, ((units - 0.75) * 4 * count).astype(np.int64))
        return np.where(count > 0, (suits.cumsum(axis=1) > wanted[:, None]).argmax(axis=1), -1)

    def _discovered(self, now: Moment) -> tuple[Ints, NDArray[np.bool_]]:
        """An item for each member, new to the member if possible, and whether the member knows it already."""
        item, known = np.full(len(now.members), -1, dtype=np.int64), np.zeros(len(now.members), dtype=np.bool_)
        last = now.slots["last_item"].astype(np.int64)
        last_genre = np.where(last >= 0, self.items.genre(np.maximum(last, 0)), -1)
        units = derive(now.words, Stream.POOL)
        genre = self.members.favourite(now.members, self._pools[now.intents], last_genre, units)
        for width, power, may_repeat in (
            (NUM_CANDIDATES, 1.0, False),
            (
                NUM_SECOND_CANDIDATES,
                1.0 / POPULARITY_POWER,
                False,
            ),  # undoes the popularity: all items of the genre are equally likely
            (NUM_SECOND_CANDIDATES, 1.0 / POPULARITY_POWER, True),
        ):
            rows = np.flatnonzero(item < 0)
            if not len(rows):
                break
            best = self._best(now.at(rows), genre[rows], width, power, may_repeat=may_repeat)
            item[rows] = best
            known[rows] = may_repeat
        return item, known

    def _best(self, now: Moment, genre: Ints, width: int, power: float, *, may_repeat: bool) -> Ints:
        """The candidate with the highest worth for each member, -1 if none is allowed. Shape: i64[N]."""
        words = spread(now.words, width)
        units = derive(words, Stream.CANDIDATE)
        item = self.items.in_genre(np.broadcast_to(genre[:, None], units.shape), units**power)
        traits = self.items.traits(item)
        members = now.members
        age_days = (now.ts_s[:, None] - traits.released_s()) / DAY_S
        allowed = (age_days >= 0) & traits.available()
        region = self.members.region(members)
        allowed &= (traits.region_mask() >> region[:, None] & 1).astype(np.bool_)
        if self.script.only_trait_advances:  # video: maturity
            allowed &= MATURITIES[traits.maturity()] <= self.members.max_maturity(members)[:, None]
        if not may_repeat:
            contacts, rows = now.slots["contacts"], np.arange(len(item))[:, None]
            (word, bit), (second_word, second_bit) = self.contact_bits(item)
            allowed &= ((contacts[rows, word] & bit) == 0) | ((contacts[rows, second_word] & second_bit) == 0)
        noise = -np.log(-np.log(derive(words, Stream.TASTE_NOISE) * 0.999998 + 1e-6))
        last = now.slots["last_item"].astype(np.int64)
        last_mood = np.where(last >= 0, self.items.traits(np.maximum(last, 0)).mood(), -1)
        trait_worth = self.script.trait[now.intents] + LIKING["trait"] * self.members.trait_liking(members)
        worth = (
            LIKING["noise"] * noise
            + LIKING["niche"] * (traits.niche() == self.members.niche(members, genre)[:, None])
            + LIKING["mood"] * (traits.mood() == last_mood[:, None])
            + self.script.newness[now.intents][:, None] * np.exp(-np.maximum(age_days, 0.0) / NEW_DAYS)
            + trait_worth[:, None] * traits.trait()
        )
        if self.script.only_trait_advances:
            worth += LIKING["language"] * (_LANGUAGE[traits.language()] == _LANGUAGE[region][:, None])
        worth = np.where(allowed, worth, -np.inf)
        best = worth.argmax(axis=1)
        rows = np.arange(len(members))
        return np.where(allowed[rows, best], item[rows, best], -1)


def _to_front(slots: NDArray[np.void], rows: Ints, places: Ints) -> None:
    """Moves the in-progress entry at ``places`` of each row to place 0; the entries in between move down."""
    if not len(rows):
        return
    column = np.arange(slots["shows"].shape[1])[None, :]
    source = np.where(column == 0, places[:, None], np.where(column <= places[:, None], column - 1, column))
    for name in ("shows", "stages"):
        slots[name][rows] = slots[name][rows[:, None], source]
