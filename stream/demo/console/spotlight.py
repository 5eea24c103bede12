"""Chooses the members that the live view shows: active ones, each for long enough to be read.

A member keeps its place on the screen while it plays and for QUIET_S after its last play, and for at least STAY_S; then the place
goes to an active member without a place. Memory is bounded: the members that have been quiet longest are dropped.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream.demo.console.snapshot import Head, Member

if TYPE_CHECKING:
    from stream.wire.messages import IntentUpdate, Recommendation

#: Reading three bars and five titles takes about this long.
STAY_S = 6.0
QUIET_S = 3.0
#: With fewer plays, a member's intents are still those of the average member.
FEWEST_PLAYS = 3
_NUM_LABELS = 5
_MOST_REMEMBERED = 2_000


@dataclass
class _Seen:
    num_plays: int = 0
    changed_s: float = 0.0
    last_item: str = ""
    listed: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    place: int | None = None
    intent: IntentUpdate | None = None


@dataclass
class Spotlight:
    """Tracks every member's newest outputs, and picks ``num_members`` members for the screen.

    ``titles`` maps item ids to titles. ``seed`` decides among members that are active at the same time.
    """

    num_members: int
    titles: Mapping[str, str]
    clock: Callable[[], float]
    seed: int = 0
    _seen: OrderedDict[str, _Seen] = field(default_factory=OrderedDict, init=False)
    _places: list[tuple[str, float] | None] = field(default_factory=list, init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._places = [None] * self.num_members

    def on_play(self, user_id: str, item_id: str) -> None:
        """Records that a play is sent."""
        seen = self._touch(user_id)
        seen.num_plays += 1
        seen.last_item = item_id
        seen.place = None
        if seen.listed:
            seen.place = seen.listed.index(item_id) + 1 if item_id in seen.listed else 0

    def on_recommendation(self, message: Recommendation) -> None:
        """Records a member's new recommendation."""
        seen = self._touch(message.user_id)
        seen.listed = tuple(item.item_id for item in message.items)
        seen.titles = tuple(item.title for item in message.items)

    def on_intent(self, message: IntentUpdate) -> None:
        """Records a member's new intents."""
        self._touch(message.user_id).intent = message

    def members(self) -> tuple[Member, ...]:
        """The members to show now, in stable places."""
        now_s = self.clock()
        for place, held in enumerate(self._places):
            if held is None or self._is_over(*held, now_s):
                self._places[place] = self._next(now_s) or held
        return tuple(self._view(held[0], now_s) for held in self._places if held is not None)

    def _touch(self, user_id: str) -> _Seen:
        seen = self._seen.setdefault(user_id, _Seen())
        seen.changed_s = self.clock()
        self._seen.move_to_end(user_id)
        while len(self._seen) > _MOST_REMEMBERED:
            oldest = next(iter(self._seen))
            if any(held is not None and held[0] == oldest for held in self._places):
                self._seen.move_to_end(oldest)
            else:
                del self._seen[oldest]
        return seen

    def _is_over(self, user_id: str, since_s: float, now_s: float) -> bool:
        return now_s - since_s >= STAY_S and now_s - self._seen[user_id].changed_s >= QUIET_S

    def _next(self, now_s: float) -> tuple[str, float] | None:
        taken = {held[0] for held in self._places if held is not None}
        newest: list[str] = []
        for user_id in reversed(self._seen):
            seen = self._seen[user_id]
            fits = now_s - seen.changed_s <= QUIET_S and user_id not in taken
            if fits and seen.num_plays >= FEWEST_PLAYS and seen.intent is not None and seen.titles:
                newest.append(user_id)
            if len(newest) == 2 * self.num_members:
                break
        return (self._random.choice(newest), now_s) if newest else None

    def _view(self, user_id: str, now_s: float) -> Member:
        seen = self._seen[user_id]
        assert seen.intent is not None, "only members with intents get a place"
        primary = seen.intent.primary
        heads = [
            Head(
                name=name,
                weight=seen.intent.weights.get(name, 0.0),
                labels=tuple(sorted(labels.items(), key=lambda entry: -entry[1])[:_NUM_LABELS]),
                primary=primary is not None and primary.head == name,
            )
            for name, labels in seen.intent.intents.items()
        ]
        return Member(
            user_id=user_id,
            num_plays=seen.num_plays,
            last_title=self.titles.get(seen.last_item, seen.last_item),
            recommended=seen.place,
            intent=f"{primary.head} {primary.label}" if primary else "",
            shifted=seen.intent.shifted,
            heads=tuple(heads),
            titles=seen.titles,
            quiet_s=now_s - seen.changed_s,
        )
