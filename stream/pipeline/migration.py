"""Moves members from the serving bundle to a coming one, one after another, most recently active first, while plays come in.

    cached by the serving bundle ─▶ encoded by the coming one, a few plays at a time ─ complete ─▶ served by the coming one

If all members moved at once, those who played while the others were being encoded would be cold again by then; the faster plays
come, the more of them. Instead a member is encoded and moved between two micro-batches, so that neither engine misses one of
its plays, and a micro-batch waits for one chunk at most.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from intentrec_core.device import CPU
from intentrec_core.engine.engine import EncodeRequest
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import BundleError, BundleFault, DeviceLost
from stream.pipeline.split import split_by_member

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout, History
    from stream.pipeline.bundle_runner import BundleRunner
    from stream.pipeline.folding import FoldedBatch

logger = logging.getLogger(__name__)

#: Plays encoded between two micro-batches: about a millisecond on a CPU, and on a GPU.
CHUNK_ON_CPU, CHUNK = 32, 1024
#: A context that cannot be encoded is the fault of its play; where most contexts cannot be, it is the bundle's. With fewer
#: members tried than this, that is decided at the end.
_MAX_BAD_RATIO = 0.5
_MIN_TRIED = 16


class MemberMigration:
    """Which of two bundles serves a member. Owned by the inference thread.

    ``history_of`` a member is None where there is none. A member with queued answers may move as well: if the engine gets an
    older context than the one it has cached, it encodes that context from the beginning.
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
        self._chunk = CHUNK_ON_CPU if coming.engine.device == CPU else CHUNK
        self._queue = deque(old.engine.cached_members())
        #: How many members have moved with a part of each size. Those who outgrow it later can still evict others.
        self._parts_by_size: Counter[int] = Counter()
        self._is_full = False
        self._partly_encoded: MemberKey | None = None
        self._bad: set[MemberKey] = set()

    @property
    def num_slots(self) -> int:
        """Members whom either engine can cache, whatever their contexts hold."""
        return min(self.old.engine.num_slots, self.coming.engine.num_slots)

    def caches(self, member: MemberKey) -> bool:
        """Whether the engine that serves a member has its earlier plays cached."""
        return (self.coming if member in self.members else self.old).engine.caches(member)

    def split(self, batch: FoldedBatch) -> tuple[FoldedBatch, FoldedBatch | None]:
        """The slice of a micro-batch that the old bundle answers, with all records, and the slice that the coming one answers."""
        rest, slices = split_by_member(batch, lambda member: 0 if member in self.members else None)
        return rest, slices.get(0)

    def step(self) -> bool:
        """Encodes the next chunk of plays, and moves each member whose context the coming engine has completely.

        Returns whether there is more to do.

        Raises: BundleError when most contexts cannot be encoded; DeviceLost. Cost: one chunk, or where one of its contexts cannot
        be encoded, each context by itself.
        """
        requests, are_complete = self._next_chunk()
        for request, is_complete, is_good in zip(requests, are_complete, self._encode(requests), strict=True):
            member = request.member
            if not is_good:
                self._bad.add(member)
                self.coming.engine.forget(member)
            elif is_complete:
                self.members.add(member)
                self._parts_by_size[self.coming.engine.units_for(len(request.context) // self._layout.size)] += 1
            else:
                self._partly_encoded = member
                self._queue.appendleft(member)
        self.coming.leave_uncounted()
        if self._is_full:
            self._queue.clear()
        elif not self._queue:  # members who became active meanwhile
            cached = self.old.engine.cached_members()
            self._queue.extend(member for member in cached if member not in self.members and member not in self._bad)
        self._check()
        return bool(self._queue)

    def _next_chunk(self) -> tuple[list[EncodeRequest], list[bool]]:
        """What is encoded next, and which of these requests completes its member."""
        requests, are_complete = list[EncodeRequest](), list[bool]()
        capacity, parts_by_size, engine = self._chunk, self._parts_by_size.copy(), self.coming.engine
        for _ in range(len(self._queue)):
            if capacity <= 0 or self._is_full:
                break
            member = self._queue.popleft()
            history = self._history_of(member)
            if history is None or not history.count or not self.old.engine.caches(member):
                continue
            anchor, num_plays = history.anchor(self._layout), history.num_events(self._layout)
            # The engine detects an inserted play by itself: the last cached play has moved.
            num_known = min(engine.num_cached_plays(member, anchor), num_plays)
            if member == self._partly_encoded:
                self._partly_encoded = None
                if not num_known:  # its anchor moved meanwhile: a member who plays that much must not delay the others
                    self._queue.append(member)
                    continue
            parts_by_size[engine.units_for(num_plays)] += 1
            if not engine.has_room(parts_by_size):
                self._is_full = True
                break
            num = min(num_plays, num_known + capacity)
            context = history.events[: num * self._layout.size]
            requests.append(EncodeRequest(member, anchor, context, num_known, num_coming=num_plays - num))
            are_complete.append(num == num_plays)
            capacity -= max(1, num - num_known)
        return requests, are_complete

    def _encode(self, requests: Sequence[EncodeRequest]) -> list[bool]:
        """Encodes; returns which requests could be encoded."""
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
