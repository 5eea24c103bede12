"""The members of a simulated world: who they are is computed from their number; what they did lately is remembered.

Memory: 4 bytes a member for finding a slot, and SLOT_BYTES for each member who played within the last FORGET_S of event
time. Whoever stays away longer comes back with nothing in progress.

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
#: A Bloom filter of 1,024 bits, two an item: never a known title taken for new; of the new ones 2 % are passed over after 75
#: titles, 39 % after 500.
CONTACT_WORDS = 16
NUM_FINISHED = 8
SLOT_DTYPE = np.dtype(
    [
        ("user", "i4"),
        ("last_ms", "i8"),
        ("last_item", "i4"),
        ("intent", "i1"),
        ("shows", "i4", (NUM_SHOWS,)),  # in progress, the latest first; -1 empty
        ("stages", "i2", (NUM_SHOWS,)),  # the next episode or stage of each
        ("contacts", "u8", (CONTACT_WORDS,)),  # every title ever begun or looked at
        ("finished", "i4", (NUM_FINISHED,)),  # a ring
        ("num_finished", "i4"),
    ],
    align=True,
)
SLOT_BYTES = SLOT_DTYPE.itemsize

PEAK_ACTIVITY = 3.0
_REGION_SHARES = np.cumsum([0.34, 0.14, 0.12, 0.10, 0.10, 0.10, 0.06, 0.04])
_UTC_HOURS = np.array([-6, 0, 1, 1, -3, 5, 9, 9])


class SimulatedMembers:
    """Properties of the ``num_members`` members of one seed, all computed."""

    def __init__(self, script: WorldScript, draws: Draws, num_members: int) -> None:
        self.script = script
        self.num_members = num_members
        self._draws = draws

    def activity(self, members: Ints) -> Floats:
        """How often the member plays, relative to the mean: 0 to 3, mean 1."""
        return PEAK_ACTIVITY * slice_unit(self._bits(members), 0, 12) ** 2

    def subscribed(self, members: Ints, ts_s: Floats) -> NDArray[np.bool_]:
        """Whether the member is there: everyone leaves and comes back, in cycles of 120 to 480 days, there for 50 to 100 %."""
        life = self._draws.bits(Stream.MEMBER_LIFE, members)
        cycle_s = DAY_S * (120 + 360 * slice_unit(life, 0, 16))
        place = (ts_s / cycle_s + slice_unit(life, 16, 24)) % 1.0
        return np.asarray(place < 0.5 + 0.5 * slice_unit(life, 40, 16))

    def region(self, members: Ints) -> Ints:
        """Index into REGIONS."""
        unit = slice_unit(self._bits(members), 12, 12)
        return np.minimum(np.searchsorted(_REGION_SHARES, unit, side="right"), len(REGIONS) - 1)

    def local_hour(self, members: Ints, ts_s: Floats) -> Floats:
        """Hour of the day where the member lives, in [0, 24)."""
        return np.asarray((ts_s / 3600.0 + _UTC_HOURS[self.region(members)]) % 24.0)

    def max_maturity(self, members: Ints) -> Ints:
        """The household's limit in years; 13 in one of eight, else 18."""
        return np.where(slice_int(self._bits(members), 24, 3) == 0, MATURITIES[2], MATURITIES[4])

    def archetype(self, members: Ints) -> Ints:
        """Index into ``script.archetype_names``."""
        count = len(self.script.archetype_names)
        return (slice_unit(self._bits(members), 27, 12) * count).astype(np.int64)

    def preference(self, members: Ints) -> Floats:
        """π: how the member's intents are distributed when a session begins: three quarters archetype, one quarter own.

        Shapes: f64[N, H], rows sum to 1.
        """
        own = (slice_unit(self._bits(members), 39, 12) * self.script.num_intents).astype(np.int64)
        return 0.75 * self.script.archetypes[self.archetype(members)] + 0.25 * np.eye(self.script.num_intents)[own]

    def transition(self, members: Ints, intents: Ints) -> Floats:
        """The next play's hidden intent, given this one's, within a session: P = 0.75 B + 0.25 · 1πᵀ.

        Shapes: f64[N, H], rows sum to 1.
        """
        return 0.75 * self.script.switch[intents] + 0.25 * self.preference(members)

    def opening(self, members: Ints, previous: Ints, ts_s: Floats) -> Floats:
        """The first hidden intent of a session, given the last one of the session before (-1 none).

        Kept with 0.35, else drawn from π, where intents of the particular audience (kids) weigh threefold at their hours.

        Shapes: f64[N, H], rows sum to 1.
        """
        hour = self.local_hour(members, ts_s)
        is_early = ((hour >= 7) & (hour < 9)) | ((hour >= 15) & (hour < 19))
        weights = self.preference(members)
        for name in self.script.audience_intents:
            weights[:, self.script.intents.index(name)] *= np.where(is_early, 3.0, 0.3)
        weights /= weights.sum(axis=1, keepdims=True)
        kept = np.where(previous >= 0, 0.35, 0.0)[:, None]
        return kept * np.eye(self.script.num_intents)[np.maximum(previous, 0)] + (1.0 - kept) * weights

    def favourite(self, members: Ints, pools: Ints, last_genre: Ints, units: Floats) -> Ints:
        """The genre a new item is taken from. Shape: i64[N], indices into ``script.genres``."""
        total = len(self.script.genres)
        taste = self._draws.bits(Stream.FAVOURITE, members)
        rank = np.searchsorted([0.5, 0.75, 0.9], units, side="right")
        # three favourites; the last tenth is any genre, found in the digits of the draw that the rank has not used
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
        """What an item with the trait (a show; an offer) is worth to the member: -1 to 1."""
        return 2.0 * slice_unit(self._bits(members), 51, 8) - 1.0

    def user_id(self, member: int) -> str:
        """The id of a member's number."""
        return f"u{member}"

    def _bits(self, members: Ints) -> NDArray[np.uint64]:
        return self._draws.bits(Stream.MEMBER, members)


class Memory:
    """What recently active members did: slots in one growing array, given back when a member is forgotten."""

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
        """Members remembered."""
        return len(self.slots) - len(self._free)

    def last_ms(self, members: Ints) -> Ints:
        """Time of each member's last play, far in the past where forgotten."""
        slots = self._slot_of[members]
        if not len(self.slots):
            return np.full(len(members), -(2**62))
        return np.where(slots >= 0, self.slots["last_ms"][slots], -(2**62))

    def take(self, members: Ints) -> Ints:
        """The slot of each of these (different) members; an empty one for those without."""
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
        """Gives back the slots of members whose last play is older, other than the busy ones."""
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
