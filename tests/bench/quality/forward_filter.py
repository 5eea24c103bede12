"""The forward filter of a simulated world of video: what is known of a member's next play from its plays so far, by one who
knows the process.

It knows the script of the world, every property of every item (niche and mood too), how often sessions begin at each hour, and
when the record ends. Of a member it sees what a model sees: its plays. From them it follows what the member holds in memory,
which the process makes of them, and a distribution over what is hidden:

- the intent of each play, with the member's archetype and own intent: one distribution over all of them together;
- whether a new item that was watched hardly at all is in progress: as many copies of the memory as there are answers;
- the member's tastes (three favourite genres, the niche of each genre, the liking of shows) and its activity.

Told the tastes, the activity and the preference, it is exact but for what is named below. Otherwise tastes, activity and intents
are held as independent of each other after each play, which they are not quite (assumed-density filtering): its ranking is then a
little below the best possible, and the one that is told them is above what anybody can reach.

When the next play begins is not known: items are as new, and released, as they were at the last one; and the rate of sessions is
that of a world whose members are as active as they are on average. Left out are a session that ends because nothing may be shown,
and what the noise of a choice leaves out of a Gumbel draw (2 in a million). The world lasts 30 days at most, in which nobody is
forgotten.

Shapes: V items, I intents, K preferences that a member can have, B copies of the memory, G genres.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.simulation.choice import Choice
from intentrec_core.simulation.items import NUM_NICHES
from intentrec_core.simulation.members import FORGET_S, KEPT_INTENT, PEAK_ACTIVITY, Memory
from intentrec_core.simulation.script import Move, Pool
from intentrec_core.simulation.sessions import by_hour, mean_session_plays
from intentrec_core.simulation.simulate import World
from tests.bench.quality.discovery import LIKING_SHARES, LIKING_STEPS, Discovery, Floats, Ints, Situation, Tastes

HOUR_MS = 3_600_000
#: How many copies of a memory are kept: the least likely ones go.
MOST_COPIES = 32
_NUM_ACTIVITIES = 24
_SUBSCRIBED = 0.75  # 50 to 100 % of a cycle, uniform
_PLAYED = np.dtype([("item", "i4"), ("move", "i1"), ("stage", "i2"), ("kept", "i1"), ("intent", "i1")])


@dataclass(frozen=True, slots=True)
class Play:
    """A play as a model sees it. ``start_ms``: its end less its duration."""

    session: str
    start_ms: int
    end_ms: int
    item: int
    move: Move
    watched_s: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Probabilities of the next play: of items f64[V] and of hidden intents f64[I]."""

    items: Floats
    intents: Floats


class ForwardFilter:
    """The filter of one world. ``told``: it is told each member's tastes, activity and preference. ``surprises`` counts plays
    that it took for impossible.

    Raises: ValueError for a world that is not of video, or that lasts longer than its members remember.
    """

    def __init__(self, world: World, end_ms: int, *, told: bool) -> None:
        if world.script.item_prefix != "v" or not world.informative:
            raise ValueError("the filter knows worlds of video whose plays say what they are")
        if end_ms - world.start_ms > 1000 * FORGET_S:
            raise ValueError("the world lasts longer than its members remember")
        self.world, self.told = world, told
        self.discovery = Discovery(world)
        self.choice = Choice(world.script, world._draws, world.items, world.members)
        self.arrivals = Arrivals(world, end_ms)
        self.contact_places = list(self.choice.contact_bits(np.arange(world.items.num_items)))
        self.for_audience = world.items.for_audience(np.arange(world.items.num_items))
        self.runtime_s = world.items.traits(np.arange(world.items.num_items)).runtime_s()
        self.audience = np.flatnonzero(world.script.genre_mask(world.script.audience))
        self.suits_audience = np.array([name in world.script.audience_intents for name in world.script.intents])
        self.surprises = 0

    def forecasts(self, member: int, plays: Sequence[Play], asked: Sequence[bool]) -> Iterator[Forecast]:
        """For each play that is asked, what the plays before it say of it."""
        belief = Belief(self, member)
        for play, wanted in zip(plays, asked, strict=True):
            if wanted:
                yield belief.forecast()
            belief.see(play)


class Belief:
    """What the filter knows of one member after some plays.

    ``weight`` f64[B, I, K] of intent and preference, with each copy of the memory ``slots`` [B].
    """

    def __init__(self, of: ForwardFilter, member: int) -> None:
        self._of, self._script = of, of.world.script
        members, who = of.world.members, np.array([member])
        num_intents, num_genres = self._script.num_intents, len(self._script.genres)
        self._member = member
        self._region, self._max_maturity = int(members.region(who)[0]), int(members.max_maturity(who)[0])
        if of.told:
            self.preference = members.preference(who)
            self.activity, self.activity_shares = members.activity(who), np.ones(1)
            units = np.array([0.25, 0.6, 0.8])  # of the first, second and third favourite
            genres = [
                int(members.favourite(who, np.array([Pool.FAVOURITE]), np.array([-1]), u[None])[0]) for u in units
            ]
            self.favourites = np.zeros((num_genres,) * 3)
            self.favourites[tuple(genres)] = 1.0
            liked = members.niche(np.full(num_genres, member), np.arange(num_genres))
            liking = float(members.trait_liking(who)[0])
            self.tastes = Tastes(np.eye(NUM_NICHES)[liked], np.ones(1), np.zeros(1, dtype=np.int64), liking)
        else:
            own = np.repeat(self._script.archetypes, num_intents, axis=0)
            self.preference = 0.75 * own + 0.25 * np.tile(np.eye(num_intents), (len(self._script.archetypes), 1))
            self.activity = PEAK_ACTIVITY * ((np.arange(_NUM_ACTIVITIES) + 0.5) / _NUM_ACTIVITIES) ** 2
            self.activity_shares = np.full(_NUM_ACTIVITIES, 1.0 / _NUM_ACTIVITIES)
            self.favourites = np.full((num_genres,) * 3, float(num_genres) ** -3)
            niche = np.full((num_genres, NUM_NICHES), 1.0 / NUM_NICHES)
            self.tastes = Tastes(niche, LIKING_SHARES, LIKING_STEPS)
        count = len(self.preference)
        self.weight = np.full((1, 1, count), 1.0 / count)
        memory = Memory(1)
        own = memory.take(np.zeros(1, dtype=np.int64))
        self.slots = memory.slots[own].copy()
        self.log_likelihood = 0.0
        self._last: Play | None = None
        every = np.repeat(np.arange(num_intents), count), np.tile(self.preference, (num_intents, 1))
        self._switched = members.switched(*every).reshape(num_intents, count, num_intents)
        self._opened = [members.opened(self.preference, np.full(count, early)) for early in (False, True)]

    def forecast(self) -> Forecast:
        """Probabilities of the next play, whenever it is. There is a play before it."""
        assert self._last is not None
        returns, early = self._of.arrivals.returns(self._region, self._last.end_ms, self.activity, self.activity_shares)
        stay = self._script.stay[:, None]
        next_weight = self._continued(self.weight * stay)
        next_weight += returns * self._begun(self.weight * (1.0 - stay), early)
        of_intent = next_weight.sum(axis=2)
        of_intent /= of_intent.sum()
        items = self.items(of_intent, self._last.end_ms / 1000.0 + self._script.idle_s)
        return Forecast(items, of_intent.sum(axis=0))

    def items(self, of_intent: Floats, ts_s: float) -> Floats:
        """Probabilities of the items of a play at that time, from those of its intent with each copy of the memory.

        Shapes: f64[B, I] -> f64[V].
        """
        now = self._now(ts_s)
        found = self._of.discovery.probabilities(now, self._genre_shares(), self.tastes)
        new, shows, finished = self._from_memory()
        moves = self._script.moves
        items = ((of_intent * (new + moves[:, Move.GLANCE])).sum(axis=0)[:, None] * found.sum(axis=0)).sum(axis=0)
        for memory, recalled, move in (("shows", shows, Move.ADVANCE), ("finished", finished, Move.REPEAT)):
            shares = np.einsum("bi,bip->bp", of_intent * moves[:, move], recalled)
            held = self.slots[memory]
            np.add.at(items, np.maximum(held, 0).ravel(), np.where(held >= 0, shares, 0.0).ravel())
        return np.asarray(items)

    def see(self, play: Play) -> None:
        """Takes a play into account."""
        before, script = self._last, self._script
        if before is None or play.session != before.session:
            since_ms = None if before is None else before.end_ms
            likelihood = self._of.arrivals.likelihood(since_ms, play.start_ms, self.activity)
            self.activity_shares = self.activity_shares * likelihood
            self.log_likelihood += float(np.log(self.activity_shares.sum()))
            self.activity_shares = self.activity_shares / self.activity_shares.sum()
            is_early = self._of.world.members.is_early(np.array([self._member]), np.array([play.start_ms / 1000.0]))[0]
            left = self.weight if before is None else self.weight * (1.0 - script.stay[:, None])
            weight = self._begun(left, float(is_early))
        else:
            weight = self._continued(self.weight * script.stay[:, None])
        unlearned = weight / weight.sum()
        weight = weight * self._chances(play, weight)[..., None]
        kept, other = self._watched_chances(play)
        new = play.move is Move.NEW
        copies = [(weight * chances[:, None], flag) for chances, flag in ((kept, 1), (other, 0)) if flag == 0 or new]
        total = sum(float(copy.sum()) for copy, _ in copies)
        if total <= 0.0:
            self._of.surprises += 1
            copies, total = [(unlearned, 0)], 1.0
        self.log_likelihood += float(np.log(total))
        weights, slots = [], []
        for copy, flag in copies:
            likely = np.flatnonzero(copy.sum(axis=(1, 2)) > 1e-9 * total)
            if len(likely):
                weights.append(copy[likely])
                slots.append(self._remembered(likely, play, kept=flag))
        self.weight, self.slots = np.concatenate(weights) / total, np.concatenate(slots)
        if len(self.slots) > MOST_COPIES:
            best = np.argsort(-self.weight.sum(axis=(1, 2)))[:MOST_COPIES]
            self.weight, self.slots = self.weight[best] / self.weight[best].sum(), self.slots[best]
        self._last = play

    def _continued(self, weight: Floats) -> Floats:
        """One step of the intents within a session. Shapes: f64[B, I, K] -> f64[B, I, K]."""
        if weight.shape[1] == 1:
            raise ValueError("a session begins before it goes on")
        return np.einsum("bik,ikj->bjk", weight, self._switched)

    def _begun(self, weight: Floats, early: float) -> Floats:
        """The first intents of a new session. Before the first one ``weight`` has no intents. Shape: -> f64[B, I, K]."""
        drawn = (1.0 - early) * self._opened[0] + early * self._opened[1]
        fresh = np.einsum("bk,kj->bjk", weight.sum(axis=1), drawn)
        return fresh if self._last is None else KEPT_INTENT * weight + (1.0 - KEPT_INTENT) * fresh

    def _chances(self, play: Play, weight: Floats) -> Floats:
        """How likely the item is played in this way, by copy and intent; learns tastes from it. Shape: f64[B, I]."""
        moves = self._script.moves
        new, shows, finished = self._from_memory()
        if play.move is Move.ADVANCE:
            return np.asarray(moves[:, Move.ADVANCE] * np.einsum("bip,bp->bi", shows, self.slots["shows"] == play.item))
        genre = int(self._of.discovery.genre[play.item])
        found = self._of.discovery.likelihood(play.item, self._now(play.start_ms / 1000.0), self.tastes)
        of_genre = self._genre_shares()[:, genre]
        as_new, as_known = np.einsum("minl,n,l->mi", found, self.tastes.niche[genre], self.tastes.liking)
        if play.move is Move.REPEAT:
            again = moves[:, Move.REPEAT] * np.einsum("bip,bp->bi", finished, self.slots["finished"] == play.item)
            return np.asarray(again + (new + moves[:, Move.GLANCE]) * of_genre * as_known)
        reached = new if play.move is Move.NEW else np.broadcast_to(moves[:, Move.GLANCE], new.shape)
        of_intent = (weight.sum(axis=2) * reached).sum(axis=0) * sum(self._watched_chances(play))
        if not self._of.told and (of_intent * of_genre * as_new).sum() > 0.0:
            self._learn_tastes(genre, of_intent, of_genre, found[0], as_new)
        return np.asarray(reached * (of_genre * as_new))

    def _learn_tastes(
        self, genre: int, of_intent: Floats, of_genre: Floats, likelihood: Floats, of_item: Floats
    ) -> None:
        niche, liking = self.tastes.niche.copy(), self.tastes.liking
        own = of_intent * of_genre
        new_niche = niche[genre] * np.einsum("i,inl,l->n", own, likelihood, liking)
        new_liking = liking * np.einsum("i,inl,n->l", own, likelihood, niche[genre])
        niche[genre] = new_niche / new_niche.sum()
        self.tastes = Tastes(niche, new_liking / new_liking.sum(), self.tastes.steps)
        is_favourite = np.array([pool is Pool.FAVOURITE for pool in self._script.pools])
        of_favourite = float((of_intent * of_item)[is_favourite].sum())
        of_others = float((own * of_item)[~is_favourite].sum())
        self.favourites = self.favourites * (
            of_favourite * _favourite_shares(self.favourites.shape[0], genre) + of_others
        )
        self.favourites /= self.favourites.sum()

    def _genre_shares(self) -> Floats:
        """How likely a new item is of each genre, by intent. Shape: f64[I, G]."""
        num_genres = self.favourites.shape[0]
        by_place = [self.favourites.sum(axis=tuple(a for a in range(3) if a != place)) for place in range(3)]
        liked = 0.5 * by_place[0] + 0.25 * by_place[1] + 0.15 * by_place[2] + 0.1 / num_genres
        for_audience = np.zeros(num_genres)
        for_audience[self._of.audience] = 1.0 / len(self._of.audience)
        by_pool = {
            Pool.FAVOURITE: liked,
            Pool.ANY: np.full(num_genres, 1.0 / num_genres),
            Pool.AUDIENCE: for_audience,
        }
        return np.array([by_pool[pool] for pool in self._script.pools])

    def _from_memory(self) -> tuple[Floats, Floats, Floats]:
        """How likely a new item is wanted, in the end, and which place of the memory is taken by one who wants to go on, or
        again.

        Shapes: f64[B, I]; f64[B, I, places] twice, all 0 where nothing held suits.
        """
        moves = self._script.moves
        shows, finished = (self._suits(name) for name in ("shows", "finished"))
        with np.errstate(invalid="ignore", divide="ignore"):
            evenly_shows, evenly = (s / s.sum(axis=2, keepdims=True) for s in (shows, finished))
        latest = (shows.cumsum(axis=2) == 1) & shows
        none_shows, none = ~shows.any(axis=2), ~finished.any(axis=2)
        new = moves[:, Move.NEW] + moves[:, Move.ADVANCE] * none_shows + moves[:, Move.REPEAT] * none
        going_on = 0.75 * latest + 0.25 * np.nan_to_num(evenly_shows)
        return new, going_on, np.nan_to_num(evenly)

    def _suits(self, memory: str) -> NDArray[np.bool_]:
        """Which items held suit each intent. Shape: bool[B, I, places]."""
        held = self.slots[memory].astype(np.int64)
        for_audience = self._of.for_audience[np.maximum(held, 0)]
        return (held >= 0)[:, None] & (for_audience[:, None] == self._of.suits_audience[None, :, None])

    def _watched_chances(self, play: Play) -> tuple[Floats, Floats]:
        """How likely the duration is, by intent: and the item kept, and not kept. Shapes: f64[I] twice."""
        script = self._script
        low, high = script.watch.T
        if play.move is Move.GLANCE:
            return np.zeros(len(low)), np.ones(len(low))
        runtime = float(self._of.runtime_s[play.item])
        if play.move is not Move.NEW:
            return np.zeros(len(low)), _share_within(play.watched_s, low * runtime, high * runtime)
        kept = script.keep * _share_within(play.watched_s, low * runtime, high * runtime)
        return kept, (1.0 - script.keep) * _share_within(play.watched_s, 0.2 * low * runtime, 0.2 * high * runtime)

    def _remembered(self, which: Ints, play: Play, *, kept: int) -> NDArray[np.void]:
        """Copies of the memory after the play."""
        slots, played = self.slots[which].copy(), np.zeros(len(which), dtype=_PLAYED)
        stage = np.ones(len(which), dtype=np.int64)
        if play.move is Move.ADVANCE:
            stage = (slots["stages"] * (slots["shows"] == play.item)).max(axis=1)
        for name, value in (("item", play.item), ("move", play.move), ("stage", stage), ("kept", kept)):
            played[name] = value
        self._of.choice.remember(slots, played)
        return slots

    def _now(self, ts_s: float) -> Situation:
        """Contacts are the same in all copies of the memory."""
        contacts = self.slots["contacts"][0]
        met = np.ones(self._of.discovery.num_items, dtype=np.bool_)
        for word, bit in self._of.contact_places:
            met &= (contacts[word] & bit) != 0
        may_show = self._of.discovery.may_show(self._region, self._max_maturity, ts_s)
        return Situation(self._region, int(self.slots["last_item"][0]), ts_s, may_show, met)


class Arrivals:
    """When members begin sessions: at a rate of their activity times that of the hour, once the gap between sessions is over.

    The rate of a member of activity 1 is such that all members together begin as many sessions as the world has.
    """

    def __init__(self, world: World, end_ms: int) -> None:
        script = world.script
        self._start_ms, self._gap_ms = world.start_ms, int(1000 * script.gap_s)
        num_hours = -(-(end_ms - world.start_ms) // HOUR_MS)
        tick_ms = world.sessions()._tick_ms
        self._at_ms = np.minimum(world.start_ms + HOUR_MS * np.arange(num_hours + 1), end_ms)
        ticks = (self._at_ms[:-1] - world.start_ms) // tick_ms * tick_ms + world.start_ms
        by_the_hour = np.array([by_hour(at_ms + tick_ms / 2) for at_ms in ticks.tolist()])
        rate_ms = _rate_s(world) * by_the_hour / 1000.0
        self._sum = np.concatenate([[0.0], np.cumsum(rate_ms * np.diff(self._at_ms))])
        members = world.members
        self._rate_ms = rate_ms
        middle_s = (self._at_ms[:-1] + HOUR_MS // 2) / 1000.0
        regions = members.region(np.arange(members.num_members))
        of_region = {int(r): int(np.flatnonzero(regions == r)[0]) for r in np.unique(regions)}
        self._early = {
            region: members.is_early(np.full(num_hours, member), middle_s) for region, member in of_region.items()
        }

    def returns(self, region: int, last_ms: int, activity: Floats, shares: Floats) -> tuple[float, float]:
        """How likely a member who has left begins another session before the record ends, and if so, at an early hour."""
        begun = self._expected(last_ms + self._gap_ms)
        still = shares @ np.exp(-activity[:, None] * np.maximum(self._sum - begun, 0.0))
        returned = np.maximum(-np.diff(still), 0.0)
        total = float(returned.sum())
        return total, float(returned[self._early[region]].sum()) / total if total > 0.0 else 0.0

    def likelihood(self, last_ms: int | None, start_ms: int, activity: Floats) -> Floats:
        """How likely each activity makes a session begin then and not before. Shape: as ``activity``."""
        begun = 0.0 if last_ms is None else self._expected(last_ms + self._gap_ms)
        waited = max(self._expected(start_ms) - begun, 0.0)
        return np.asarray(np.maximum(activity, 1e-6) * np.exp(-activity * waited))

    def _expected(self, at_ms: int) -> float:
        return float(np.interp(at_ms, self._at_ms, self._sum))


def _rate_s(world: World) -> float:
    """Sessions per second of a member of activity 1 who is free: found by bisection."""
    plays = mean_session_plays(world.script)
    wanted = world.rate / plays
    busy_s = plays * (world.script.play_s + world.script.idle_s) + world.script.gap_s
    activity = PEAK_ACTIVITY * ((np.arange(4096) + 0.5) / 4096) ** 2
    low, high = 0.0, 1.0
    for _ in range(100):
        rate = (low + high) / 2
        begun = (rate * activity / (1.0 + rate * activity * busy_s)).mean() * world.users * _SUBSCRIBED
        low, high = (rate, high) if begun < wanted else (low, rate)
    return (low + high) / 2


def _favourite_shares(num_genres: int, genre: int) -> Floats:
    """How likely a favourite draw is of the genre, by the three favourites. Shape: f64[G, G, G]."""
    is_it = np.arange(num_genres) == genre
    of_three = 0.5 * is_it[:, None, None] + 0.25 * is_it[None, :, None] + 0.15 * is_it[None, None, :]
    return np.asarray(of_three + 0.1 / num_genres)


def _share_within(watched_s: float, low: Floats, high: Floats) -> Floats:
    """How much of [low, high] is rounded to these seconds; nothing is shorter than 10. Shape: as ``low``."""
    begin = -np.inf if watched_s <= 10.0 else watched_s - 0.5
    inside = np.minimum(high, watched_s + 0.5) - np.maximum(low, begin)
    return np.asarray(np.maximum(inside, 0.0) / (high - low))
