"""With what probability a member of a simulated world comes upon each new item.

A member draws a genre, then some items of it, and takes the one of the highest worth: a sum of what it likes, and of a Gumbel
draw for each candidate. Where none of them is new, it draws more, and where none of those is, it takes what it knows. So with
q(c) the share of an item c among the draws and s(c) = exp(worth / noise), the item x is taken of n candidates with the
probability

    n · q(x) · s(x) · ∫ exp(−t s(x)) · F(t)^(n−1) dt,    F(t) = Σ q(c) exp(−t s(c)), a forbidden item counting with s = 0

The integral is a sum over equal steps of log t, which for such functions is exact to five digits. What a member likes is not
known: the niche of the genre multiplies s by the same number for all items of it, and so does the liking of shows. A product is
a shift of log t, so all of them share the sums over items.

Shapes: V items, I intents, G genres, N niches, L likings of shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentrec_core.kernels.dense import compiled
from intentrec_core.simulation.choice import LIKING, NEW_DAYS, NUM_CANDIDATES, NUM_SECOND_CANDIDATES
from intentrec_core.simulation.items import DAY_S, LANGUAGES, MATURITIES, NUM_NICHES, NUM_SLOTS, POPULARITY_POWER
from intentrec_core.simulation.simulate import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The step of log t: five of them are the worth of a niche, one is half of the liking of shows.
STEP = LIKING["niche"] / LIKING["noise"] / 5
NICHE_STEPS = 5
LIKING_STEPS = np.array([-2, -1, 0, 1, 2])
#: How likely each of these likings is: a uniform one, by the trapezoidal rule.
LIKING_SHARES = np.array([0.125, 0.25, 0.25, 0.25, 0.125])
_LOW, _POINTS = -30.0, 56
_LOG_FIRST, _LAST = -11.5, np.exp(4.0)
#: A draw that is reached less often than this is left out of forecasts.
_NEGLIGIBLE = 1e-6
_NUM_CLASSES = 2 * NUM_NICHES


@compiled
def _transforms(begin: int, end: int, order: Any, log_s: Any, may_show: Any, first: Any, transforms: Any) -> None:
    """exp(−t s) of each item that may be shown, from the point ``first`` i64[any] on: before it 1, and after the last 0.

    Shape: transforms f64[any, points].
    """
    growth = np.exp(STEP)
    for at in range(begin, end):
        x, own = order[at], at - begin
        if not may_show[x]:
            continue
        first[own] = min(max(int(np.ceil((_LOG_FIRST - _LOW - log_s[x]) / STEP)), 0), _POINTS)
        z = np.exp(_LOW + STEP * first[own] + log_s[x])
        for j in range(first[own], _POINTS):
            transforms[own, j] = np.exp(-z) if z <= _LAST else 0.0
            z *= growth


@compiled
def _sums(
    begin: int, end: int, order: Any, share: Any, kind: Any, allowed: Any, first: Any, transforms: Any, sums: Any
) -> float:
    """Σ q exp(−t s) by class of item, at all points. Returns the share of forbidden items."""
    sums[:] = 0.0
    forbidden = 1.0
    for at in range(begin, end):
        x, own = order[at], at - begin
        if not allowed[x]:
            continue
        forbidden -= share[x]
        for j in range(first[own]):
            sums[kind[x], j] += share[x]
        for j in range(first[own], _POINTS):
            sums[kind[x], j] += share[x] * transforms[own, j]
    return max(forbidden, 0.0)


@compiled
def _powers(sums: Any, forbidden: float, others: int, niche: Any, steps: Any, powers: Any) -> None:
    """F(t) ** others for every niche that is possible, and every liking. Shape: f64[N, L, points]."""
    for n in range(NUM_NICHES):
        if niche[n] == 0.0:
            continue
        for liked in range(len(steps)):
            for j in range(_POINTS):
                total = forbidden
                for c in range(_NUM_CLASSES):
                    place = j + (NICHE_STEPS if c // 2 == n else 0) + (steps[liked] if c % 2 else 0)
                    if place < _POINTS:
                        total += sums[c, max(place, 0)]
                powers[n, liked, j] = total**others


@compiled
def _power_at(powers: Any, n: int, liked: int, j: int) -> float:
    if j < 0:
        return 1.0
    return powers[n, liked, min(j, _POINTS - 1)]


@compiled
def _integral(log_s: float, first: int, transform: Any, curve: Any) -> float:
    """∫ z exp(−z) · curve over log z. Shapes: f64[points] twice."""
    total, growth = 0.0, np.exp(STEP)
    z = np.exp(_LOW + STEP * first + log_s)
    for j in range(first, _POINTS):
        total += z * transform[j] * curve[j]
        z *= growth
    return total * STEP


@compiled
def _add_discoveries(
    begin: Any,
    order: Any,
    shares: Any,
    kind: Any,
    log_s: Any,
    allowed: Any,
    genre_share: Any,
    niche: Any,
    liking: Any,
    steps: Any,
    candidates: Any,
    found: Any,
) -> None:
    """Adds the probability of each item, given the intent. ``shares`` and ``allowed`` [3, V] are of the three draws.

    Shape: found f64[2, I, V], of items that are new and of those that are known.
    """
    sums = np.empty((_NUM_CLASSES, _POINTS))
    powers = np.empty((NUM_NICHES, len(steps), _POINTS))
    curve = np.empty((_NUM_CLASSES, _POINTS))
    most = np.max(begin[1:] - begin[:-1])
    first, transforms = np.empty(most, dtype=np.int64), np.empty((most, _POINTS))
    for i in range(len(log_s)):
        for g in range(len(begin) - 1):
            reached = genre_share[i, g]
            if reached >= _NEGLIGIBLE:
                _transforms(begin[g], begin[g + 1], order, log_s[i], allowed[2], first, transforms)
            for draw in range(len(candidates)):
                if reached < _NEGLIGIBLE:
                    break
                forbidden = _sums(
                    begin[g], begin[g + 1], order, shares[draw], kind, allowed[draw], first, transforms, sums
                )
                _powers(sums, forbidden, candidates[draw] - 1, niche[g], steps, powers)
                for c in range(_NUM_CLASSES):
                    for j in range(_POINTS):
                        total = 0.0
                        for n in range(NUM_NICHES):
                            if niche[g, n] == 0.0:
                                continue
                            for liked in range(len(steps)):
                                back = (NICHE_STEPS if c // 2 == n else 0) + (steps[liked] if c % 2 else 0)
                                total += niche[g, n] * liking[liked] * _power_at(powers, n, liked, j - back)
                        curve[c, j] = total
                for at in range(begin[g], begin[g + 1]):
                    x, own = order[at], at - begin[g]
                    if allowed[draw, x]:
                        one = _integral(log_s[i, x], first[own], transforms[own], curve[kind[x]])
                        found[draw // 2, i, x] += reached * candidates[draw] * shares[draw, x] * one
                reached *= forbidden ** candidates[draw]


@compiled
def _likelihood(
    x: int,
    begin: int,
    end: int,
    order: Any,
    shares: Any,
    kind: Any,
    log_s: Any,
    allowed: Any,
    niche: Any,
    steps: Any,
    candidates: Any,
    found: Any,
) -> None:
    """Of one item of a genre [begin, end), given intent, niche and liking; 0 for niches that are impossible.

    Shape: found f64[2, I, N, L].
    """
    sums = np.empty((_NUM_CLASSES, _POINTS))
    powers = np.empty((NUM_NICHES, len(steps), _POINTS))
    curve = np.empty(_POINTS)
    first, transforms = np.empty(end - begin, dtype=np.int64), np.empty((end - begin, _POINTS))
    own = 0
    while order[begin + own] != x:
        own += 1
    for i in range(len(log_s)):
        reached = 1.0
        _transforms(begin, end, order, log_s[i], allowed[2], first, transforms)
        for draw in range(len(candidates)):
            if reached == 0.0:
                break
            forbidden = _sums(begin, end, order, shares[draw], kind, allowed[draw], first, transforms, sums)
            _powers(sums, forbidden, candidates[draw] - 1, niche, steps, powers)
            for n in range(NUM_NICHES):
                if niche[n] == 0.0 or not allowed[draw, x]:
                    continue
                for liked in range(len(steps)):
                    back = (NICHE_STEPS if kind[x] // 2 == n else 0) + (steps[liked] if kind[x] % 2 else 0)
                    for j in range(_POINTS):
                        curve[j] = _power_at(powers, n, liked, j - back)
                    one = _integral(log_s[i, x], first[own], transforms[own], curve)
                    found[draw // 2, i, n, liked] += reached * candidates[draw] * shares[draw, x] * one
            reached *= forbidden ** candidates[draw]


@dataclass(frozen=True, slots=True)
class Tastes:
    """What is known of a member's tastes: probabilities. Shapes: niche f64[G, N], liking f64[L]; ``steps`` i64[L] are the
    likings. ``known_liking`` is the worth of a show where it is known; then L is 1.
    """

    niche: Floats
    liking: Floats
    steps: Ints
    known_liking: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides which items are allowed, and their worth. Shapes: may_show bool[V], met bool[V] as the member remembers it."""

    region: int
    last_item: int
    ts_s: float
    may_show: NDArray[np.bool_]
    met: NDArray[np.bool_]

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Items that may be drawn first, second, and where both draws bring none. Shape: bool[3, V]."""
        new = self.may_show & ~self.met
        return np.array([new, new, self.may_show])


class Discovery:
    """The new items of one world."""

    def __init__(self, world: World) -> None:
        script, items = world.script, world.items
        numbers = np.arange(items.num_items // NUM_SLOTS * NUM_SLOTS)
        self.num_items = items.num_items
        self.genre = items.genre(np.arange(items.num_items))
        self._newness, self._trait = script.newness, script.trait
        of_genre = [numbers[self.genre[numbers] == g] for g in range(len(script.genres))]
        self._order = np.concatenate(of_genre)
        self._begin = np.concatenate([[0], np.cumsum([len(own) for own in of_genre])])
        self._shares = np.zeros((3, items.num_items))
        for own in of_genre:
            edges = np.arange(len(own) + 1) / len(own)
            self._shares[0, own] = np.diff(edges ** (1.0 / POPULARITY_POWER))
            self._shares[1:, own] = 1.0 / len(own)
        own = items.traits(np.arange(items.num_items))
        self._kind = 2 * own.niche() + own.trait()
        self._mood, self._released_s = own.mood(), own.released_s()
        self._is_show = own.trait().astype(np.float64)
        self._language = np.array([LANGUAGES.index(name) for name in LANGUAGES])
        self._of_language = self._language[own.language()]
        self._available, self._region_mask = own.available(), own.region_mask()
        self._maturity = MATURITIES[own.maturity()]
        self._candidates = np.array([NUM_CANDIDATES, NUM_SECOND_CANDIDATES, NUM_SECOND_CANDIDATES])

    def may_show(self, region: int, max_maturity: int, ts_s: float) -> NDArray[np.bool_]:
        """Items that the member's region, age limit and time allow. Shape: bool[V]."""
        allowed = (self._region_mask >> region & 1).astype(np.bool_) & self._available
        return allowed & (self._maturity <= max_maturity) & (self._released_s <= ts_s)

    def probabilities(self, now: Situation, genre_share: Floats, tastes: Tastes) -> Floats:
        """Of every item, given the intent: as a new one, and as one that the member knows because there is no new one.

        ``genre_share`` f64[I, G]: of the genre, given the intent. Shape: f64[2, I, V].
        """
        found = np.zeros((2, len(genre_share), self.num_items))
        _add_discoveries(
            self._begin,
            self._order,
            self._shares,
            self._kind,
            self._log_s(now, tastes.known_liking, slice(None)),
            now.allowed,
            genre_share,
            tastes.niche,
            tastes.liking,
            tastes.steps,
            self._candidates,
            found,
        )
        return found

    def likelihood(self, item: int, now: Situation, tastes: Tastes) -> Floats:
        """Of one item, given its genre, the intent, the niche of the genre and the liking, as in :meth:`probabilities`.

        Shape: f64[2, I, N, L].
        """
        found = np.zeros((2, len(self._newness), NUM_NICHES, len(tastes.steps)))
        begin, end = self._begin[self.genre[item]], self._begin[self.genre[item] + 1]
        _likelihood(
            item,
            begin,
            end,
            self._order,
            self._shares,
            self._kind,
            self._log_s(now, tastes.known_liking, self._order[begin:end]),
            now.allowed,
            tastes.niche[self.genre[item]],
            tastes.steps,
            self._candidates,
            found,
        )
        return found

    def _log_s(self, now: Situation, known_liking: float, which: slice | Ints) -> Floats:
        """log s without niche and unknown liking; items that are not in ``which`` are left at 0. Shape: f64[I, V]."""
        mood = self._mood[now.last_item] if now.last_item >= 0 else -1
        age_days = np.maximum(now.ts_s - self._released_s[which], 0.0) / DAY_S
        worth = LIKING["mood"] * (self._mood[which] == mood)
        worth = worth + LIKING["language"] * (self._of_language[which] == self._language[now.region])
        worth = worth + self._newness[:, None] * np.exp(-age_days / NEW_DAYS)
        worth = worth + (self._trait[:, None] + LIKING["trait"] * known_liking) * self._is_show[which]
        log_s = np.zeros((len(self._newness), self.num_items))
        log_s[:, which] = worth / LIKING["noise"]
        return log_s
