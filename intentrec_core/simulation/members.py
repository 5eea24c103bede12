"""The members of a simulated world. Their properties are computed from their number; their recent plays are remembered.

Memory: 4 bytes per member for finding a slot, and SLOT_BYTES for each member who played within the last FORGET_S of
event time. A member who stays away longer returns with nothing in progress.

Shapes: N members at a time; H hidden intents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intentrec_core.simulation.items import DAY_S, MATURITIES, NUM_NICHES, REGIONS
from intentrec_core.simulation.random_streams import Draws, Floats, Ints, Stream, slice_int, slice_unit
from intentrec_core.simulation.script import Pool, WorldScript

FORGET_S = 30 * DAY_S
NUM_SHOWS = 4
#: A Bloom filter of 1,024 bits, two per item. It never takes a known title for new. It wrongly skips 2 % of the new
#: titles after 75 titles, 39 % after 500.
CONTACT_WORDS = 16
NUM_FINISHED = 8
SLOT_DTYPE = np.dtype(
    [
        ("user", "i4"),
        ("last_ms", "i8"),
        ("last_item", "i4"),
        ("intent", "i1"),
        ("shows", "i4", (NUM_SHOWS,)),  # in progress, latest first; -1 empty
        ("stages", "i2", (NUM_SHOWS,)),  # next episode or stage of each
        ("contacts", "u8", (CONTACT_WORDS,)),  # titles that the member has started or looked at
        ("finished", "i4", (NUM_FINISHED,)),  # a ring buffer
        ("num_finished", "i4"),
    ],
    align=True,
)
SLOT_BYTES = SLOT_DTYPE.itemsize

PEAK_ACTIVITY = 3.0
#: How likely a session begins with the last intent of the one before it.
KEPT_INTENT = 0.35
_REGION_SHARES = np.cumsum([0.34, 0.14, 0.12, 0.10, 0.10, 0.10, 0.06, 0.04])
_UTC_HOURS = np.array([-6, 0, 1, 1, -3, 5, 9, 9])


class SimulatedMembers:
    """Properties of the ``num_members`` members of one seed, all computed."""

    def __init__(self, script: WorldScript, draws: Draws, num_members: int) -> None:
        self.script = script
        self.num_members = num_members
        self._draws = draws

    def activity(self, members: Ints) -> Floats:
        """How often the member plays, relative to the mean: 0 to 3, with mean 1."""
        return PEAK_ACTIVITY * slice_unit(self._bits(members), 0, 12) ** 2

    def subscribed(self, members: Ints, ts_s: Floats) -> NDArray[np.bool_]:
        """Whether the member is present. Every member leaves and returns in cycles of 120 to 480 days, and is present
        for 50 to 100 % of a cycle.
        """
        life = self._draws.bits(Stream.MEMBER_LIFE, members)
        cycle_s = DAY_S * (120 + 360 * slice_unit(life, 0, 16))
        place = (ts_s / cycle_s + slice_unit(life, 16, 24)) % 1.0
        return np.asarray(place < 0.5 + 0.5 * slice_unit(life, 40, 16))

    def region(self, members: Ints) -> Ints:
        """Index into REGIONS."""
        unit = slice_unit(self._bits(members), 12, 12)
        return np.minimum(np.searchsorted(_REGION_SHARES, unit, side="right"), len(REGIONS) - 1)

    def local_hour(self, members: Ints, ts_s: Floats) -> Floats:
        """Hour of the day at the member's place, in [0, 24)."""
        return np.asarray((ts_s / 3600.0 + _UTC_HOURS[self.region(members)]) % 24.0)

    def max_maturity(self, members: Ints) -> Ints:
        """The household's age limit in years: 13 for one in eight members, else 18."""
        return np.where(slice_int(self._bits(members), 24, 3) == 0, MATURITIES[2], MATURITIES[4])

    def archetype(self, members: Ints) -> Ints:
        """Index into ``script.archetype_names``."""
        count = len(self.script.archetype_names)
        return (slice_unit(self._bits(members), 27, 12) * count).astype(np.int64)

    def preference(self, members: Ints) -> Floats:
        """π: the distribution of the member's intents at the start of a session: three quarters from the archetype, one
        quarter individual.

        Shapes: f64[N, H], rows sum to 1.
        """
        own = (slice_unit(self._bits(members), 39, 12) * self.script.num_intents).astype(np.int64)
        return 0.75 * self.script.archetypes[self.archetype(members)] + 0.25 * np.eye(self.script.num_intents)[own]

    def transition(self, members: Ints, intents: Ints) -> Floats:
        """The distribution of the next play's hidden intent within a session, given the current one: P = 0.75 B + 0.25
        · 1πᵀ.

        Shapes: f64[N, H], rows sum to 1.
        """
        return self.switched(intents, self.preference(members))

    def switched(self, intents: Ints, preference: Floats) -> Floats:
        """P for given preferences. Shapes: i64[N], f64[N, H] -> f64[N, H]."""
        return 0.75 * self.script.switch[intents] + 0.25 * preference

    def opening(self, members: Ints, previous: Ints, ts_s: Floats) -> Floats:
        """The distribution of a session's first hidden intent, given the last one of the previous session (-1 none).

        With probability KEPT_INTENT the intent is kept; otherwise it is drawn from π, in which the intents of the special
        audience (kids) have three times their weight at that audience's hours.

        Shapes: f64[N, H], rows sum to 1.
        """
        weights = self.opened(self.preference(members), self.is_early(members, ts_s))
        kept = np.where(previous >= 0, KEPT_INTENT, 0.0)[:, None]
        return kept * np.eye(self.script.num_intents)[np.maximum(previous, 0)] + (1.0 - kept) * weights

    def opened(self, preference: Floats, is_early: NDArray[np.bool_]) -> Floats:
        """The part of :meth:`opening` that is drawn from π, for given preferences. Shapes: f64[N, H], bool[N] -> f64[N, H]."""
        weights = preference.copy()
        for name in self.script.audience_intents:
            weights[:, self.script.intents.index(name)] *= np.where(is_early, 3.0, 0.3)
        weights /= weights.sum(axis=1, keepdims=True)
        return weights

    def is_early(self, members: Ints, ts_s: Floats) -> NDArray[np.bool_]:
        """Whether it is an hour of the special audience at the member's place."""
        hour = self.local_hour(members, ts_s)
        return np.asarray(((hour >= 7) & (hour < 9)) | ((hour >= 15) & (hour < 19)))

    def favourite(self, members: Ints, pools: Ints, last_genre: Ints, units: Floats) -> Ints:
        """The genre of a new item. Shape: i64[N], indices into ``script.genres``."""
        total = len(self.script.genres)
        taste = self._draws.bits(Stream.FAVOURITE, members)
        rank = np.searchsorted([0.5, 0.75, 0.9], units, side="right")
        # Three favourites; the last tenth is any genre, chosen by digits of the draw that the rank has not used.
        genre = np.select(
            [rank == 0, rank == 1, rank == 2],
            [slice_int(taste, 16 * i, 16) % total for i in range(3)],
            default=(units * 1e6).astype(np.int64) % total,
        )
        genre = np.where(pools == Pool.ANY, (units * total).astype(np.int64), genre)
        genre = np.where((pools == Pool.SAME) & (last_genre >= 0) & (units < 0.9), last_genre, genre)
        audience = np.flatnonzero(self.script.genre_mask(self.script.audience))
        if len(audience):
            genre = np.where(pools == Pool.AUDIENCE, audience[(units * len(audience)).astype(np.int64)], genre)
        return genre

    def niche(self, members: Ints, genres: Ints) -> Ints:
        """The kind of a genre that the member likes."""
        return self._draws.below(NUM_NICHES, Stream.FAVOURITE, members, genres)

    def trait_liking(self, members: Ints) -> Floats:
        """The worth of an item with the trait (a show; an offer) to the member: -1 to 1."""
        return 2.0 * slice_unit(self._bits(members), 51, 8) - 1.0

    def user_id(self, member: int) -> str:
        """The id of a member's number."""
        return f"u{member}"

    def _bits(self, members: Ints) -> NDArray[np.uint64]:
        return self._draws.bits(Stream.MEMBER, members)


class Memory:
    """Recent plays of recently active members: slots in one growing array, which are freed when a member is forgotten."""

    def __init__(self, num_members: int) -> None:
        self.slots = np.zeros(0, dtype=SLOT_DTYPE)
        self._slot_of = np.full(num_members, -1, dtype=np.int32)
        self._free = np.zeros(0, dtype=np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.slots.nbytes + self._slot_of.nbytes + self._free.nbytes)

    @property
    def num_used(self) -> int:
        """Number of members with a slot."""
        return len(self.slots) - len(self._free)

    def last_ms(self, members: Ints) -> Ints:
        """Time of each member's last play, far in the past for forgotten members."""
        slots = self._slot_of[members]
        if not len(self.slots):
            return np.full(len(members), -(2**62))
        return np.where(slots >= 0, self.slots["last_ms"][slots], -(2**62))

    def take(self, members: Ints) -> Ints:
        """The slot of each of these (different) members; an empty one for members that have none."""
        missing = members[self._slot_of[members] < 0]
        if len(missing) > len(self._free):
            self._grow(max(1024, len(self.slots) // 2, len(missing)))
        taken, self._free = self._free[: len(missing)], self._free[len(missing) :]
        fresh = np.zeros(len(missing), dtype=SLOT_DTYPE)
        fresh["user"], fresh["last_item"], fresh["intent"] = missing, -1, -1
        fresh["shows"] = fresh["finished"] = -1
        self.slots[taken] = fresh
        self._slot_of[missing] = taken
        return self._slot_of[members].astype(np.int64)

    def forget(self, before_ms: int, busy_slots: Ints) -> None:
        """Frees the slots of members whose last play is older, except for busy slots."""
        idle = self.slots["last_ms"] < before_ms
        idle[busy_slots] = False
        idle[self._free] = False
        slots = np.flatnonzero(idle).astype(np.int32)
        self._slot_of[self.slots["user"][slots]] = -1
        self._free = np.concatenate([self._free, slots])

    def _grow(self, more: int) -> None:
        old = len(self.slots)
        self.slots = np.concatenate([self.slots, np.zeros(more, dtype=SLOT_DTYPE)])
        self._free = np.concatenate([self._free, np.arange(old, old + more, dtype=np.int32)])
