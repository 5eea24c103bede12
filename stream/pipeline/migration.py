"""A coming bundle takes the members of the one that serves over, one after another, hottest first, while plays are served.

    cached by the bundle that serves ─▶ encoded by the coming one, a few plays at a time ─ whole ─▶ served by the coming one

Were all of them moved at once, the members who play while the others are encoded would be cold again by then: the faster plays
come, the more. A member is encoded and moved between two micro-batches instead, so that neither engine misses a play of theirs;
and micro-batches wait for no more than a piece.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from intentrec_core.engine.engine import EncodeRequest
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import BundleError, BundleFault, DeviceLost
from stream.pipeline.split import Slice, deal

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout, History
    from stream.pipeline.bundle_runner import BundleRunner
    from stream.pipeline.folding import ContextRun, PartitionWork

logger = logging.getLogger(__name__)

#: Plays encoded between two micro-batches: about a millisecond of either.
CHUNK_ON_CPU, CHUNK = 32, 1024
#: A context that cannot be encoded is its play's fault; most of them are the bundle's. Not judged by fewer, but at the end.
_MAX_BAD_RATIO = 0.5
_MIN_TRIED = 16


class MemberMigration:
    """Who is served by which of two bundles. Owned by the inference thread.

    ``history_of`` a member, None where there is none. A member with answers that are held back may move as well: where an older
    context is asked for than the one cached, the engine encodes it from its beginning.
    """

    def __init__(
        self,
        old: BundleRunner,
        coming: BundleRunner,
        layout: EventLayout,
        history_of: Callable[[MemberKey], History | None],
    ) -> None:
        self.old, self.coming = old, coming
        self.members: set[MemberKey] = set()
        self._layout, self._history_of = layout, history_of
        self._chunk = CHUNK_ON_CPU if coming.engine.model.device.type == "cpu" else CHUNK
        self._queue = deque(old.engine.cached_members())
        self._begun: MemberKey | None = None
        self._bad: set[MemberKey] = set()

    @property
    def num_slots(self) -> int:
        """Members whom either engine can cache."""
        return min(self.old.engine.num_slots, self.coming.engine.num_slots)

    def caches(self, member: MemberKey) -> bool:
        """Whether the engine that serves a member has their earlier plays cached."""
        return (self.coming if member in self.members else self.old).engine.caches(member)

    def deal(
        self, works: Sequence[PartitionWork], waves: Sequence[Sequence[ContextRun]]
    ) -> tuple[list[list[ContextRun]], Slice | None]:
        """Takes out of a micro-batch what the coming bundle answers; returns the waves of the other one, and that."""
        rest, shares = deal(works, waves, lambda member: 0 if member in self.members else None)
        return rest, shares.get(0)

    def advance(self) -> bool:
        """Encodes the next plays of members, and moves those of whom the coming engine has everything now.

        Returns whether there is more to do.

        Raises: BundleError when most contexts cannot be encoded; DeviceLost. Cost: a piece, or where one of its contexts cannot
        be encoded, each of them by itself.
        """
        requests, are_whole = self._next_chunk()
        for request, is_whole, is_good in zip(requests, are_whole, self._encode(requests), strict=True):
            member = request.member
            if not is_good:
                self._bad.add(member)
                self.coming.engine.forget(member)
            elif is_whole:
                self.members.add(member)
            else:
                self._begun = member
                self._queue.appendleft(member)
        self.coming.leave_uncounted()
        if len(self.members) >= self.num_slots:
            self._queue.clear()
        elif not self._queue:  # whoever came meanwhile
            cached = self.old.engine.cached_members()
            self._queue.extend(member for member in cached if member not in self.members and member not in self._bad)
        self._check()
        return bool(self._queue)

    def _next_chunk(self) -> tuple[list[EncodeRequest], list[bool]]:
        """What is encoded next, and of which of these members it is the last that is missing."""
        requests, are_whole = list[EncodeRequest](), list[bool]()
        room = self._chunk
        for _ in range(len(self._queue)):
            if room <= 0 or len(self.members) + len(requests) >= self.num_slots:
                break
            member = self._queue.popleft()
            history = self._history_of(member)
            if history is None or not history.count or not self.old.engine.caches(member):
                continue
            anchor, num_plays = history.anchor(self._layout), history.num_events(self._layout)
            # A late play among these the engine sees by itself: their last one is not where it was.
            num_known = min(self.coming.engine.num_cached_plays(member, anchor), num_plays)
            if member == self._begun:
                self._begun = None
                if not num_known:  # their anchor moved meanwhile: who plays that much must not hold up the others
                    self._queue.append(member)
                    continue
            num = min(num_plays, num_known + room)
            context = history.events[: num * self._layout.size]
            requests.append(EncodeRequest(member, anchor, context, num_known))
            are_whole.append(num == num_plays)
            room -= max(1, num - num_known)
        return requests, are_whole

    def _encode(self, requests: Sequence[EncodeRequest]) -> list[bool]:
        """Encodes; returns which of them could be."""
        if not requests:
            return []
        try:
            encoded = self.coming.engine.encode(requests)
        except DeviceLost:  # not this bundle's fault: it must not be refused for good
            raise
        except Exception as error:  # as on the hot path: what a context can do to a model is not known beforehand
            if len(requests) > 1:
                return [good for request in requests for good in self._encode([request])]
            logger.warning("%s cannot encode a context: %r", self.coming.serving.version, error)
            return [False]
        return [bool(np.isfinite(row).all()) for row in encoded.item_NW]

    def _check(self) -> None:
        num_bad = len(self._bad)
        num_tried = len(self.members) + num_bad
        if num_bad > _MAX_BAD_RATIO * num_tried and (num_tried >= _MIN_TRIED or not self._queue):
            detail = f"cannot encode {num_bad} of {num_tried} members' contexts"
            raise BundleError(BundleFault.NOT_FINITE, self.coming.serving.version, detail)
