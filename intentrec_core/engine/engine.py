"""The incremental engine: encodes one position per new play instead of a whole context.

Keys and values of earlier plays come from the pool. If a member is not cached, or the cached context has changed (the
anchor moved, a play was inserted out of order, the weights differ), the member is encoded again from the first play that
changed. The output equals full recomputation of the same context (:mod:`intentrec_core.engine.reference`).

The engine knows members, contexts and tensors. It does not know item names, the index, the broker or the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from intentrec_core.device import CPU
from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.cuda.device_faults import DeviceFault, fault_of, first_line
from intentrec_core.engine.encoder import Encoder, StepOutput, no_output
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.engine.slots import NO_LABEL, Part, SlotAllocator
from intentrec_core.errors import ConfigError, DeviceLost
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.kernels.context_rows import number_rows
from intentrec_core.model.weights import ModelWeights

#: Plays encoded in one pass. Limits the memory that a pass needs in addition to the pool.
MAX_POSITIONS = 8192


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """One member's context to encode, with outputs wanted for its last ``num_outputs`` plays.

    ``context`` are the packed plays held. ``anchor`` is the index of the first of them among all plays of the member.
    Plays before position ``first_changed`` are the same as in this member's last request. The engine itself notices
    when the anchor has moved since, or when the context is older than the last one. ``num_coming``: plays that follow in later
    requests and that the member's part of the pool is to have room for already.
    """

    member: MemberKey
    anchor: int
    context: bytes
    first_changed: int
    num_outputs: int = 1
    num_coming: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """Outputs of requests, in the order of the requests; for each request, oldest play first.

    Shapes: item f32[N, W]; heads one f32[N, L_i] of probabilities; alpha f32[N, M]; intent f32[N, P]; primary and
    previous_primary i64[N]: flat label id of the primary intent at the play and at the previous play, -1 for none.
    """

    item_NW: NDArray[np.float32]
    heads: tuple[NDArray[np.float32], ...]
    alpha_NM: NDArray[np.float32]
    intent_NP: NDArray[np.float32]
    primary_N: NDArray[np.int64]
    previous_primary_N: NDArray[np.int64]


@dataclass(slots=True)
class EngineStats:
    """Counts since the engine was made: requests with and without reusable keys and values, positions encoded, and passes."""

    hits: int = 0
    misses: int = 0
    positions: int = 0
    passes: int = 0


@dataclass(slots=True)
class _EncodeJob:
    """A request with the position it is encoded from, and its part of the pool."""

    request: EncodeRequest
    num_plays: int
    start: int
    part: Part
    num_new: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_new = self.num_plays - self.start


class IncrementalEngine:
    """Encodes plays of members with one set of weights, over a pool of cached keys and values.

    ``pool_bytes`` is the memory limit of the members' keys and values, and ``kv_dtype`` their type. ``device``: ``cpu``, ``cuda``
    or ``cuda:N``. ``num_threads``: how many threads encode on a CPU. ``make_encoder`` makes an encoder from the bytes of its
    pool; by default the device decides. Not thread safe: one thread owns an engine. A pool belongs to one engine and therefore
    to one version of the weights and one type: what is cached is never read with others than it was written with.

    Raises: ConfigError when the pool is too small for one member, or for int8 on another device than the CPU.
    """

    def __init__(
        self,
        weights: ModelWeights,
        features: FeatureBuilder,
        *,
        pool_bytes: int,
        version: str,
        device: str = CPU,
        kv_dtype: KvDtype = KvDtype.FLOAT32,
        num_threads: int = 1,
        make_encoder: Callable[[int], Encoder] | None = None,
    ) -> None:
        self.weights, self.device = weights, device
        self.version = version
        self.stats = EngineStats()
        self._features = features
        self._layout = features.layout
        self._make_encoder = make_encoder or encoder_on(device, weights, kv_dtype, num_threads)
        self._pool_bytes = pool_bytes
        self.encoder = self._new_encoder()
        self._slots = SlotAllocator(self.encoder.num_slots, self.encoder.slot_units)
        ends = (*weights.domain.label_offsets[1:], None) if weights.config.intent_stage else ()
        #: Of each head its labels among those of all heads side by side.
        self._heads = [slice(first, end) for first, end in zip(weights.domain.label_offsets, ends, strict=False)]

    @property
    def num_evictions(self) -> int:
        """Number of times a member lost its part of the pool to another member."""
        return self._slots.num_evictions

    @property
    def num_cached(self) -> int:
        """Number of members that have a part of the pool."""
        return len(self._slots)

    @property
    def num_slots(self) -> int:
        """Number of slots, and so of members that the pool holds in any case."""
        return self.encoder.num_slots

    @property
    def num_contexts(self) -> int:
        """Number of whole contexts that the pool has room for."""
        return self.encoder.num_slots * self.encoder.slot_contexts

    @property
    def num_contexts_in_use(self) -> int:
        """Number of whole contexts that fit into the slots in which a member has a part."""
        return (self.encoder.num_slots - self._slots.num_empty_slots) * self.encoder.slot_contexts

    @property
    def num_units(self) -> int:
        """Number of units of the pool, and so of members that it holds where each context fits into one."""
        return self._slots.num_units

    def units_for(self, num_plays: int) -> int:
        """Number of units of the part that a context with so many plays takes."""
        return self._slots.size_for(-(-num_plays // self.encoder.unit_plays))

    def has_room(self, parts_by_size: Mapping[int, int]) -> bool:
        """Whether the pool can hold so many parts of each number of units."""
        return self._slots.has_room(parts_by_size)

    def caches(self, member: MemberKey) -> bool:
        """Whether a member has a part of the pool. Does not count as a use of it."""
        return member in self._slots

    def num_cached_plays(self, member: MemberKey, anchor: int) -> int:
        """Number of plays cached for a member's context that begins at ``anchor``. Does not count as a use of its part."""
        part = self._slots.peek(member)
        return part.length if part is not None and part.anchor == anchor else 0

    def cached_members(self) -> list[MemberKey]:
        """Members that have a part of the pool, most recently active first."""
        return self._slots.members()

    def forget(self, member: MemberKey) -> None:
        """Drops the cache of a member."""
        self._slots.release(member)

    def encode(self, requests: Sequence[EncodeRequest]) -> Encoded:
        """Encodes the new plays of each context.

        If the device runs out of memory, the pool is halved: cached members are encoded again at their next play, and
        no play is dropped.

        Raises: ValueError when a member occurs twice, a context is empty, or more outputs are wanted than the context
        has plays; torch.OutOfMemoryError when a pool for one context is still too large; DeviceLost when the device has
        failed for good. After any error, the members of this call are no longer cached.

        Cost: one position of the encoders per new play if the member is cached, otherwise the whole context.
        """
        while True:
            try:
                return self._encode(requests)
            except RuntimeError as error:
                match fault_of(error):
                    case DeviceFault.OUT_OF_MEMORY if self.num_contexts > 1:
                        pass
                    case DeviceFault.LOST:
                        raise DeviceLost(f"the device {self.device} is lost: {first_line(error)}") from error
                    case _:
                        raise
            self._halve_the_pool()  # outside the handler: the error's traceback refers to the encoder and its memory

    def _new_encoder(self) -> Encoder:
        """Makes an encoder. If the device lacks the memory, as it may for a coming bundle next to the one in service, the
        pool is halved until it fits.

        Raises: ConfigError when the device lacks the memory for even one member.
        """
        while True:
            try:
                return self._make_encoder(self._pool_bytes)
            except RuntimeError as error:
                if fault_of(error) is not DeviceFault.OUT_OF_MEMORY:
                    raise
            self._pool_bytes //= 2

    def _halve_the_pool(self) -> None:
        num_evictions = self._slots.num_evictions + len(self._slots)
        self._pool_bytes //= 2
        del self.encoder  # its memory must be free before the smaller pool is allocated
        try:
            self.encoder = self._new_encoder()
        except ConfigError as error:  # another process has taken the device's memory: this one can no longer use it
            raise DeviceLost(f"the device {self.device} has no memory left: {error}") from error
        self._slots = SlotAllocator(self.encoder.num_slots, self.encoder.slot_units)
        self._slots.num_evictions = num_evictions

    def _encode(self, requests: Sequence[EncodeRequest]) -> Encoded:
        members = [request.member for request in requests]
        if len(set(members)) != len(members):
            raise ValueError("a member occurs twice in one call")
        passed: list[tuple[StepOutput, NDArray[np.int64]]] = []
        try:
            for low in range(0, len(requests), self.num_slots):
                jobs = self._plan(requests[low : low + self.num_slots])
                passed += [self._run(group) for group in _passes(jobs)]
        except BaseException:  # parts that are only partly written must not be read
            for member in members:
                self.forget(member)
            raise
        out, previous_primary_N = passed[0] if len(passed) == 1 else self._joined(passed)
        return Encoded(
            item_NW=out.item,
            heads=tuple([out.probs[:, head] for head in self._heads]),
            alpha_NM=out.alpha,
            intent_NP=out.intent,
            primary_N=out.primary,
            previous_primary_N=previous_primary_N,
        )

    def _joined(self, passed: Sequence[tuple[StepOutput, NDArray[np.int64]]]) -> tuple[StepOutput, NDArray[np.int64]]:
        """The outputs of all passes, one after another."""
        none = no_output(self.weights, 0), np.zeros(0, dtype=np.int64)
        outputs, previous = zip(none, *passed, strict=True)
        return StepOutput._make(map(np.concatenate, zip(*outputs, strict=True))), np.concatenate(previous)

    def _plan(self, requests: Sequence[EncodeRequest]) -> list[_EncodeJob]:
        """Finds, enlarges or allocates each member's part. There must be no more requests than slots: then none of these
        members is evicted for another of them.
        """
        found = self._slots.look_up([request.member for request in requests])
        jobs, unit_plays = [], self.encoder.unit_plays
        for request, part in zip(requests, found, strict=True):
            num_plays, rest = divmod(len(request.context), self._layout.size)
            if rest or not 1 <= request.num_outputs <= num_plays:
                raise ValueError(f"a context of {len(request.context)} bytes cannot give {request.num_outputs} outputs")
            start = self._reusable(request, part, num_plays)
            num_units = -(-(num_plays + request.num_coming) // unit_plays)
            if part is not None and start and part.num_units < num_units:
                part, moved_from = self._slots.enlarge(request.member, num_units), part.first_unit
                self.encoder.move(moved_from, part.first_unit, -(-start // unit_plays))
            if part is None or start == 0:
                self._slots.release(request.member)
                part = self._slots.allocate(request.member, num_units)
                self.stats.misses += 1
            else:
                self.stats.hits += 1
            jobs.append(_EncodeJob(request, num_plays, start, part))
        return jobs

    def _reusable(self, request: EncodeRequest, part: Part | None, num_plays: int) -> int:
        """Number of plays of the context that need no encoding: cached, unchanged, and without a wanted output."""
        if part is None or part.anchor != request.anchor or not 0 < part.length <= num_plays:
            return 0
        size = self._layout.size
        unchanged = min(part.length, request.first_changed)
        if unchanged == part.length and request.context[(part.length - 1) * size : part.length * size] != part.tail:
            return 0
        start = min(unchanged, num_plays - request.num_outputs)
        # The part stores the primary intent of its last play only. For an earlier play, the play before it is encoded
        # again.
        return start if start == part.length else max(0, start - 1)

    def _run(self, jobs: list[_EncodeJob]) -> tuple[StepOutput, NDArray[np.int64]]:
        """Encodes one pass; returns the outputs that are wanted, and the primary intent at the play before each."""
        columns = self._features.columns([job.request.context for job in jobs], [job.start for job in jobs])
        num_outputs = np.array([job.request.num_outputs for job in jobs], dtype=np.int64)
        (first, _), (_, _, output_rows) = number_rows(columns.lengths, num_outputs)
        wanted = np.zeros(len(columns.item_row), dtype=bool)
        wanted[output_rows] = True
        output = self.encoder.encode(columns, np.array([job.part.first_unit for job in jobs]), wanted)
        # The previous primary intent comes from the previous play of the pass or, for the first one, from the part.
        before = np.empty_like(output.primary)
        before[1:] = output.primary[:-1]
        before[first] = [job.part.primary if job.start else NO_LABEL for job in jobs]
        self.stats.positions += len(wanted)
        self.stats.passes += 1
        size, newest = self._layout.size, output.primary[first + columns.lengths - 1]
        for job, primary in zip(jobs, newest.tolist(), strict=True):
            job.part.anchor, job.part.length, job.part.primary = job.request.anchor, job.num_plays, primary
            job.part.tail = bytes(job.request.context[-size:])
        return StepOutput._make([column.take(output_rows, axis=0) for column in output]), before[output_rows]


def encoder_on(device: str, weights: ModelWeights, kv_dtype: KvDtype, num_threads: int) -> Callable[[int], Encoder]:
    """What makes a model's encoder for a device from the bytes of its pool. For ``cpu``, torch is not imported.

    Raises: ConfigError for int8 on another device than the CPU.
    """
    kv_dtype.check_on(device)
    if device == CPU:
        return partial(CpuEncoder, weights, kv_dtype=kv_dtype, num_threads=num_threads)
    from intentrec_core.engine.cuda.encoder import TorchEncoder
    from intentrec_core.model.model import IntentRec

    return partial(TorchEncoder, IntentRec.of(weights).to(device))


def _passes(jobs: Sequence[_EncodeJob]) -> Iterator[list[_EncodeJob]]:
    """Groups jobs into passes with a limited number of plays. A single context may exceed the limit."""
    group: list[_EncodeJob] = []
    num_new = 0
    for job in jobs:
        if group and num_new + job.num_new > MAX_POSITIONS:
            yield group
            group, num_new = [], 0
        group.append(job)
        num_new += job.num_new
    if group:
        yield group
