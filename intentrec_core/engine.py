"""The incremental engine: each play costs one position of both encoders.

Keys and values of earlier plays come from the pool; a member who is not cached, or whose context changed underneath
(the anchor moved, a late play was inserted, other weights), is encoded again from the first play that changed.
What comes out equals full recomputation of the same context (:mod:`intentrec_core.reference`).

The engine knows members, contexts and tensors. It knows no items' names, no index, no broker and no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.features import FeatureBuilder, collate
from intentrec_core.kv_pool import NO_LABEL, KvPool, PooledAttend, Slot, SlotAllocator
from intentrec_core.model import IntentRec, ModelOutput

#: Plays (padding included) encoded in one pass. Bounds the memory of a pass, B·T·S biases: 4,096 positions of 128-play
#: contexts in 4 heads are 8 MB a layer.
MAX_POSITIONS = 4096


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """One member's context to be encoded, with outputs wanted for its last ``num_outputs`` plays.

    ``context`` are the packed plays held, ``anchor`` the index of the first one among all the member's plays;
    plays before position ``first_changed`` are as they were at this member's last request (if the anchor moved since, the engine
    sees that itself).
    """

    user_id: str
    anchor: int
    context: bytes
    first_changed: int
    num_outputs: int = 1


@dataclass(frozen=True, slots=True)
class Encoded:
    """Outputs of requests, in their order, each one's plays oldest first.

    Shapes: item f32[N, W]; heads one f32[N, L_i] of probabilities; alpha f32[N, M]; intent f32[N, P]; primary and
    previous_primary i64[N]: flat label of the primary intent at the play and at the one before it, -1 for none.
    """

    item_NW: NDArray[np.float32]
    heads: tuple[NDArray[np.float32], ...]
    alpha_NM: NDArray[np.float32]
    intent_NP: NDArray[np.float32]
    primary_N: NDArray[np.int64]
    previous_primary_N: NDArray[np.int64]


@dataclass(slots=True)
class EngineStats:
    """Running counts since the engine was made."""

    hits: int = 0
    misses: int = 0
    positions: int = 0
    passes: int = 0


@dataclass(slots=True)
class _Job:
    """A request with the position it is encoded from, its slot and where its outputs go."""

    request: EncodeRequest
    num_plays: int
    start: int
    slot: Slot
    first_row: int
    num_new: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_new = self.num_plays - self.start


class IncrementalEngine:
    """Encodes plays of members with one set of weights, over a pool of cached keys and values.

    Not thread safe: one thread owns an engine. A pool belongs to one engine and so to one version of the weights: no slot is
    ever read with other weights than it was written with.
    """

    def __init__(self, model: IntentRec, features: FeatureBuilder, *, pool_bytes: int, version: str) -> None:
        self.model = model.eval()
        self.version = version
        self.stats = EngineStats()
        self._features = features
        self._layout = features.layout
        domain = model.domain
        self._pool = KvPool(
            budget_bytes=pool_bytes,
            num_layers=model.config.num_cached_layers,
            context_size=domain.context_size,
            width=model.config.width,
            device=model.device,
        )
        self._slots = SlotAllocator(self._pool.num_slots)

    @property
    def num_evictions(self) -> int:
        """Members whose slot was taken for another one."""
        return self._slots.num_evictions

    @property
    def num_cached(self) -> int:
        """Members with a slot."""
        return len(self._slots)

    @property
    def num_slots(self) -> int:
        """Members the pool can hold."""
        return self._pool.num_slots

    def caches(self, user_id: str) -> bool:
        """Whether a member has a slot; not a use of it."""
        return user_id in self._slots

    def cached_users(self) -> list[str]:
        """Members with a slot, most recently active first."""
        return self._slots.users()

    def forget(self, user_id: str) -> None:
        """Drops what is cached of a member."""
        self._slots.release(user_id)

    @torch.inference_mode()
    def encode(self, requests: Sequence[EncodeRequest]) -> Encoded:
        """Encodes what is new in each context.

        Raises: ValueError when a member comes twice, a context is empty, or more outputs are wanted than it holds plays.
        Whatever is raised, the members of this call are no longer cached.

        Cost: one position of the encoders a new play where the member is cached, the whole context otherwise.
        """
        users = [request.user_id for request in requests]
        if len(set(users)) != len(users):
            raise ValueError("a member comes twice in one call")
        rows = np.cumsum([0, *(request.num_outputs for request in requests)])
        out = self._empty(int(rows[-1]))
        try:
            for low in range(0, len(requests), self._slots.num_slots):
                chunk = range(low, min(low + self._slots.num_slots, len(requests)))
                jobs = self._plan([requests[i] for i in chunk], [int(rows[i]) for i in chunk])
                for group in _passes(jobs):
                    self._run(group, out)
        except BaseException:
            for user_id in users:
                self.forget(user_id)
            raise
        return out

    def _plan(self, requests: Sequence[EncodeRequest], first_rows: Sequence[int]) -> list[_Job]:
        """Finds or makes a slot for every request. Members found are touched first, so that none of them is evicted here."""
        found = [self._slots.find(request.user_id) for request in requests]
        jobs = []
        for request, slot, first_row in zip(requests, found, first_rows, strict=True):
            num_plays, rest = divmod(len(request.context), self._layout.size)
            if rest or not 1 <= request.num_outputs <= num_plays:
                raise ValueError(f"{len(request.context)} bytes of plays with {request.num_outputs} outputs wanted")
            start = self._reusable(request, slot, num_plays)
            if slot is None or start == 0:
                self._slots.release(request.user_id)
                slot = self._slots.allocate(request.user_id)
                self.stats.misses += 1
            else:
                self.stats.hits += 1
            jobs.append(_Job(request, num_plays, start, slot, first_row))
        return jobs

    def _reusable(self, request: EncodeRequest, slot: Slot | None, num_plays: int) -> int:
        """How many plays of the context need no encoding: cached, unchanged, and no output wanted of them."""
        if slot is None or slot.anchor != request.anchor or not 0 < slot.length <= num_plays:
            return 0
        size = self._layout.size
        unchanged = min(slot.length, request.first_changed)
        if unchanged == slot.length and request.context[(slot.length - 1) * size : slot.length * size] != slot.tail:
            return 0
        start = min(unchanged, num_plays - request.num_outputs)
        # The slot remembers the primary intent of its last play only: for an earlier one, that play is encoded again.
        return start if start == slot.length else max(0, start - 1)

    def _run(self, jobs: list[_Job], out: Encoded) -> None:
        columns = self._features.columns([job.request.context for job in jobs], [job.start for job in jobs])
        batch = collate(columns).to(self.model.device)
        slots = torch.tensor([job.slot.index for job in jobs], device=self.model.device)
        attend = PooledAttend(
            self._pool, slots, batch.starts, batch.lengths, batch.ts_s, self.model.domain.short_term_window_s
        )
        self._scatter(jobs, self.model(batch, attend), out)
        self.stats.positions += int(columns.lengths.sum())
        self.stats.passes += 1
        size = self._layout.size
        for job in jobs:
            job.slot.anchor, job.slot.length = job.request.anchor, job.num_plays
            job.slot.tail = bytes(job.request.context[-size:])

    def _scatter(self, jobs: list[_Job], output: ModelOutput, out: Encoded) -> None:
        """Copies the wanted positions to their rows, and keeps the newest primary intent in the slot."""
        wanted = np.array([job.request.num_outputs for job in jobs])
        which = np.repeat(np.arange(len(jobs)), wanted)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(wanted) - wanted, wanted)
        place = np.array([job.num_new - job.request.num_outputs for job in jobs])[which] + nth
        row = np.array([job.first_row for job in jobs])[which] + nth
        at = (torch.from_numpy(which).to(self.model.device), torch.from_numpy(place).to(self.model.device))
        out.item_NW[row] = output.item_BTW[at].float().cpu().numpy()
        if not output.head_logits:
            return
        for kept, logits in zip(out.heads, output.head_logits, strict=True):
            kept[row] = torch.softmax(logits[at].float(), dim=-1).cpu().numpy()
        out.alpha_NM[row] = output.alpha_BTM[at].float().cpu().numpy()
        out.intent_NP[row] = output.intent_BTP[at].float().cpu().numpy()
        primary_BT = primary_labels(output, self.model.domain.label_offsets).cpu().numpy()
        out.primary_N[row] = primary_BT[which, place]
        before = np.where(place > 0, primary_BT[which, np.maximum(place - 1, 0)], NO_LABEL)
        at_start = np.array([job.slot.primary if job.start else NO_LABEL for job in jobs])[which]
        out.previous_primary_N[row] = np.where(place > 0, before, at_start)
        for i, job in enumerate(jobs):
            job.slot.primary = int(primary_BT[i, job.num_new - 1])

    def _empty(self, num: int) -> Encoded:
        config, heads = self.model.config, self.model.domain.heads if self.model.config.intent_stage else ()
        return Encoded(
            item_NW=np.empty((num, config.width), dtype=np.float32),
            heads=tuple(np.empty((num, head.num_labels), dtype=np.float32) for head in heads),
            alpha_NM=np.empty((num, len(heads)), dtype=np.float32),
            intent_NP=np.empty((num, config.intent_width if heads else 0), dtype=np.float32),
            primary_N=np.full(num, NO_LABEL, dtype=np.int64),
            previous_primary_N=np.full(num, NO_LABEL, dtype=np.int64),
        )


def primary_labels(output: ModelOutput, label_offsets: Sequence[int]) -> torch.Tensor:
    """The primary intent of every play: the likeliest label of the head with the largest alpha, as a flat label id.

    Shapes: i64[B, T].
    """
    likeliest = torch.stack(
        [logit.argmax(dim=-1) + offset for logit, offset in zip(output.head_logits, label_offsets, strict=True)], dim=-1
    )
    return likeliest.gather(-1, output.alpha_BTM.argmax(dim=-1, keepdim=True)).squeeze(-1)


def _passes(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Groups jobs of like length, so that padding at most doubles a pass, and bounds what one pass encodes."""
    group: list[_Job] = []
    for job in sorted(jobs, key=lambda job: job.num_new):
        shortest = group[0].num_new if group else job.num_new
        if group and (
            job.num_new > 2 * shortest
            or (shortest == 1 < job.num_new)
            or (len(group) + 1) * job.num_new > MAX_POSITIONS
        ):
            yield group
            group = []
        group.append(job)
    if group:
        yield group
