"""The incremental engine: each play costs one position of both encoders.

Keys and values of earlier plays come from the pool; a member who is not cached, or whose context changed underneath
(the anchor moved, a late play was inserted, other weights), is encoded again from the first play that changed.
What comes out equals full recomputation of the same context (:mod:`intentrec_core.engine.reference`).

The engine knows members, contexts and tensors. It knows no items' names, no index, no broker and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.cuda.device_faults import DeviceFault, fault_of, first_line
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.encoder import Encoder, StepOutput, no_output
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.engine.output_rows import put_rows
from intentrec_core.engine.slots import NO_LABEL, Slot, SlotAllocator
from intentrec_core.errors import ConfigError, DeviceLost
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.model import IntentRec

#: Plays encoded in one pass: bounds the memory that a pass takes beside the pool.
MAX_POSITIONS = 8192


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """One member's context to be encoded, with outputs wanted for its last ``num_outputs`` plays.

    ``context`` are the packed plays held, ``anchor`` the index of the first one among all the member's plays;
    plays before position ``first_changed`` are as they were at this member's last request (if the anchor moved since, or an older
    context is asked for than the last one, the engine sees that itself).
    """

    member: MemberKey
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

    ``make_encoder`` takes the model and ``pool_bytes``, a limit on members' slots; without it, the model's device decides.
    Not thread safe: one thread owns an engine. A pool belongs to one engine and so to one version of the weights: no slot is
    ever read with other weights than it was written with.
    """

    def __init__(
        self,
        model: IntentRec,
        features: FeatureBuilder,
        *,
        pool_bytes: int,
        version: str,
        make_encoder: Callable[[IntentRec, int], Encoder] | None = None,
    ) -> None:
        self.model = model.eval()
        self.version = version
        self.stats = EngineStats()
        self._features = features
        self._layout = features.layout
        self._make_encoder = make_encoder or (CpuEncoder if model.device.type == "cpu" else TorchEncoder)
        self._pool_bytes = pool_bytes
        self.encoder = self._new_encoder()
        self._slots = SlotAllocator(self.encoder.num_slots)

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
        return self.encoder.num_slots

    def caches(self, member: MemberKey) -> bool:
        """Whether a member has a slot; not a use of it."""
        return member in self._slots

    def num_cached_plays(self, member: MemberKey, anchor: int) -> int:
        """How many plays are cached of a member's context that begins at ``anchor``; not a use of their slot."""
        slot = self._slots.peek(member)
        return slot.length if slot is not None and slot.anchor == anchor else 0

    def cached_members(self) -> list[MemberKey]:
        """Members with a slot, most recently active first."""
        return self._slots.members()

    def forget(self, member: MemberKey) -> None:
        """Drops what is cached of a member."""
        self._slots.release(member)

    @torch.inference_mode()
    def encode(self, requests: Sequence[EncodeRequest]) -> Encoded:
        """Encodes what is new in each context.

        A device that is out of memory costs half of the pool: everybody is encoded again as they play, and nobody is given up.

        Raises: ValueError when a member comes twice, a context is empty, or more outputs are wanted than it holds plays;
        torch.OutOfMemoryError when a pool of one slot is still too large; DeviceLost when the device will answer nobody any
        more. Whatever is raised, the members of this call are no longer cached.

        Cost: one position of the encoders a new play where the member is cached, the whole context otherwise.
        """
        while True:
            try:
                return self._encode(requests)
            except RuntimeError as error:
                match fault_of(error):
                    case DeviceFault.OUT_OF_MEMORY if self.num_slots > 1:
                        pass
                    case DeviceFault.LOST:
                        raise DeviceLost(f"the device {self.model.device} is lost: {first_line(error)}") from error
                    case _:
                        raise
            self._halve_the_pool()  # only here: while the error is at hand, its traceback holds the encoder and its memory

    def _new_encoder(self) -> Encoder:
        """With half of the pool, or a quarter and so on, where the device lacks room: a coming bundle beside one that serves.

        Raises: ConfigError when there is no room for one member.
        """
        while True:
            try:
                return self._make_encoder(self.model, self._pool_bytes)
            except RuntimeError as error:
                if fault_of(error) is not DeviceFault.OUT_OF_MEMORY:
                    raise
            self._pool_bytes //= 2

    def _halve_the_pool(self) -> None:
        num_evictions = self._slots.num_evictions + len(self._slots)
        self._pool_bytes //= 2
        del self.encoder  # its memory must be free before the smaller one is taken
        try:
            self.encoder = self._new_encoder()
        except (
            ConfigError
        ) as error:  # whatever else takes the device's memory, this process can do nothing with it any more
            raise DeviceLost(f"the device {self.model.device} has no memory left: {error}") from error
        self._slots = SlotAllocator(self.encoder.num_slots)
        self._slots.num_evictions = num_evictions

    def _encode(self, requests: Sequence[EncodeRequest]) -> Encoded:
        members = [request.member for request in requests]
        if len(set(members)) != len(members):
            raise ValueError("a member comes twice in one call")
        rows = np.cumsum([0, *(request.num_outputs for request in requests)])
        out = no_output(self.model, int(rows[-1]))
        previous_primary_N = np.full(int(rows[-1]), NO_LABEL, dtype=np.int64)
        try:
            for low in range(0, len(requests), self._slots.num_slots):
                chunk = range(low, min(low + self._slots.num_slots, len(requests)))
                jobs = self._plan([requests[i] for i in chunk], [int(rows[i]) for i in chunk])
                for group in _passes(jobs):
                    self._run(group, out, previous_primary_N)
        except BaseException:
            for member in members:
                self.forget(member)
            raise
        bounds = self.model.domain.label_offsets[1:] if self.model.config.intent_stage else ()
        return Encoded(
            item_NW=out.item,
            heads=tuple(np.split(out.probs, bounds, axis=1)) if self.model.config.intent_stage else (),
            alpha_NM=out.alpha,
            intent_NP=out.intent,
            primary_N=out.primary,
            previous_primary_N=previous_primary_N,
        )

    def _plan(self, requests: Sequence[EncodeRequest], first_rows: Sequence[int]) -> list[_Job]:
        """Finds or makes a slot for every request. Members found are touched first, so that none of them is evicted here."""
        found = [self._slots.find(request.member) for request in requests]
        jobs = []
        for request, slot, first_row in zip(requests, found, first_rows, strict=True):
            num_plays, rest = divmod(len(request.context), self._layout.size)
            if rest or not 1 <= request.num_outputs <= num_plays:
                raise ValueError(f"{len(request.context)} bytes of plays with {request.num_outputs} outputs wanted")
            start = self._reusable(request, slot, num_plays)
            if slot is None or start == 0:
                self._slots.release(request.member)
                slot = self._slots.allocate(request.member)
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

    def _run(self, jobs: list[_Job], out: StepOutput, previous_primary_N: NDArray[np.int64]) -> None:
        columns = self._features.columns([job.request.context for job in jobs], [job.start for job in jobs])
        ends = np.cumsum(columns.lengths)
        num_outputs = np.array([job.request.num_outputs for job in jobs])
        answered = _tails(ends, num_outputs)
        wanted = np.zeros(len(columns.item_row), dtype=bool)
        wanted[answered] = True
        output = self.encoder.encode(columns, np.array([job.slot.index for job in jobs]), wanted)
        to = _tails(np.array([job.first_row for job in jobs]) + num_outputs, num_outputs)
        put_rows(StepOutput._make(column[answered] for column in output), to, out)
        # Before a play of the pass stands the play before it; before its first one, what the slot remembers.
        first = ends - columns.lengths
        before = np.concatenate([[NO_LABEL], output.primary[:-1]])
        before[first] = [job.slot.primary if job.start else NO_LABEL for job in jobs]
        previous_primary_N[to] = before[answered]
        self.stats.positions += int(ends[-1])
        self.stats.passes += 1
        size = self._layout.size
        for job, newest in zip(jobs, output.primary[ends - 1].tolist(), strict=True):
            job.slot.anchor, job.slot.length, job.slot.primary = job.request.anchor, job.num_plays, newest
            job.slot.tail = bytes(job.request.context[-size:])


def _tails(ends: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ``sizes`` numbers before each of ``ends``. Shapes: i64[B] twice -> i64[sum of sizes]."""
    return np.repeat(ends - np.cumsum(sizes), sizes) + np.arange(int(sizes.sum()))


def _passes(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Cuts jobs into passes of a bounded number of plays; a single context may be longer."""
    group: list[_Job] = []
    num_new = 0
    for job in jobs:
        if group and num_new + job.num_new > MAX_POSITIONS:
            yield group
            group, num_new = [], 0
        group.append(job)
        num_new += job.num_new
    if group:
        yield group
