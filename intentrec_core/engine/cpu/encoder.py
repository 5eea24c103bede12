"""The encoder on the CPU: the compiled step (:mod:`intentrec_core.engine.cpu.step`) over numpy arrays, with members
divided among threads.

It is a second implementation of :mod:`intentrec_core.model.model`; see docs/cpu-engine.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from intentrec_core.engine.cpu.block import BlockRows, KvCache, make_scratch
from intentrec_core.engine.cpu.decode_attention import GROUP
from intentrec_core.engine.cpu.step import encode_held
from intentrec_core.engine.cpu.weights import step_weights
from intentrec_core.engine.encoder import StepOutput, contexts_within, no_output
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.slots import part_sizes
from intentrec_core.features.columns import Columns
from intentrec_core.kernels.context_rows import spread
from intentrec_core.kernels.held import Held
from intentrec_core.kernels.simd import aligned_zeros
from intentrec_core.model.config import ModelSizes
from intentrec_core.model.weights import ModelWeights

#: Of a play: whole milliseconds, in 48 bits.
_TIME_BYTES = 6
_NUMBERS = {KvDtype.FLOAT32: np.float32, KvDtype.INT8: np.int8}
#: Passing rows to another thread costs as much as encoding one or two rows.
_MIN_ROWS_A_THREAD = 4
#: Whole contexts that a slot of a large pool has room for: more members fit in than with one, two or four (decision 119).
SLOT_CONTEXTS = 3
#: A pool with fewer slots of several contexts has slots of one: a pass has no more members than there are slots, and by default a
#: worker's micro-batch has up to 256 plays.
MIN_SLOTS = 256


class CpuEncoder:
    """Keeps keys, values and times in numpy arrays, and encodes on ``num_threads`` threads.

    A unit is a group of keys, 32 plays. Memory is taken when a unit is first used. With ``kv_dtype`` int8, keys and values are
    codes of a byte: a slot takes little more than a quarter.

    A slot has room for three whole contexts where the pool has room for 3 · 256 or more, else for one. ``slot_contexts`` sets how
    many; a pool with room for fewer is one slot. What is left over at the end of the pool, two contexts at most, is not used.

    Making an encoder compiles the step if this machine has not done so yet, so that a worker that is ready answers at
    once.
    """

    def __init__(
        self,
        model: ModelWeights,
        pool_bytes: int,
        kv_dtype: KvDtype = KvDtype.FLOAT32,
        *,
        num_threads: int = 1,
        slot_contexts: int | None = None,
    ) -> None:
        config, context_size = model.config, model.domain.context_size
        num_contexts = contexts_within(pool_bytes, context_bytes(model, kv_dtype))
        self.slot_contexts = _slot_contexts(num_contexts, slot_contexts)
        self.num_slots = num_contexts // self.slot_contexts
        self.slot_units, self.unit_plays = self.slot_contexts * units_of(context_size), GROUP
        self._model = model
        weights = step_weights(model)
        groups, layers = self.num_slots * self.slot_units, config.num_cached_layers
        plays, numbers = groups * GROUP, _NUMBERS[kv_dtype]
        scaled = (config.num_cached_heads, plays) if kv_dtype is KvDtype.INT8 else (0, 0)
        cache = self._cache = KvCache(
            k=aligned_zeros(layers, groups, config.cached_width, GROUP, dtype=numbers),
            v=aligned_zeros(layers, plays, config.cached_width, dtype=numbers),
            k_scales=aligned_zeros(layers, *scaled),
            v_scales=aligned_zeros(layers, *scaled),
            time_high=np.zeros(plays, dtype=np.int16),
            time_low=np.zeros(plays, dtype=np.uint32),
            log_place=np.log1p(np.arange(context_size)[::-1]).astype(np.float32),
        )
        self._num_threads = num_threads
        #: One for each thread.
        self._held = [Held((weights, cache, make_scratch(weights, cache))) for _ in range(self._num_threads)]
        self._threads = ThreadPoolExecutor(max(1, self._num_threads - 1), thread_name_prefix="encode")
        self.encode(_one_play(model), np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool))

    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """See :class:`intentrec_core.engine.encoder.Encoder`."""
        unit, place = spread(units, columns.starts, columns.lengths)
        rows = BlockRows(columns.item_row, columns.codes, columns.ts_s, columns.gap_s, unit, place, wanted)
        out = no_output(self._model, len(unit))
        (begin, end), *others = _row_ranges(columns.lengths, len(unit), self._num_threads)
        running = [
            self._threads.submit(encode_held, held, rows, low, high, out)
            for (low, high), held in zip(others, self._held[1:], strict=False)
        ]
        encode_held(self._held[0], rows, begin, end, out)
        for submitted in running:
            submitted.result()
        return out

    def move(self, from_unit: int, to_unit: int, num_units: int) -> None:
        """See :class:`intentrec_core.engine.encoder.Encoder`."""
        cache = self._cache
        held, free = slice(from_unit, from_unit + num_units), slice(to_unit, to_unit + num_units)
        cache.k[:, free] = cache.k[:, held]
        held, free = (slice(part.start * GROUP, part.stop * GROUP) for part in (held, free))
        cache.v[:, free] = cache.v[:, held]
        for scales in (cache.k_scales, cache.v_scales):
            if scales.size:
                scales[:, :, free] = scales[:, :, held]
        for times in (cache.time_high, cache.time_low):
            times[free] = times[held]


def _one_play(model: ModelSizes) -> Columns:
    """A play of no item, used to compile the step. What it leaves in the pool is never read."""
    return Columns(
        item_row=np.zeros(1, dtype=np.int64),
        codes=np.zeros((1, len(model.domain.dynamic_fields)), dtype=np.int64),
        ts_s=np.zeros(1),
        gap_s=np.full(1, -1, dtype=np.float32),
        weight=np.ones(1, dtype=np.float32),
        lengths=np.ones(1, dtype=np.int64),
        starts=np.zeros(1, dtype=np.int64),
    )


def context_bytes(model: ModelSizes, kv_dtype: KvDtype = KvDtype.FLOAT32) -> int:
    """Bytes of a whole context."""
    return units_of(model.domain.context_size) * _unit_bytes(model, kv_dtype)


def member_bytes(model: ModelSizes, num_plays: int, kv_dtype: KvDtype = KvDtype.FLOAT32) -> int:
    """Bytes of the part of a member whose context holds ``num_plays``, in a slot of three contexts. Units of the slot that belong
    to no part are not counted.
    """
    sizes = part_sizes(SLOT_CONTEXTS * units_of(model.domain.context_size))
    return next(size for size in sizes if size >= units_of(num_plays)) * _unit_bytes(model, kv_dtype)


def units_of(num_plays: int) -> int:
    """The units that so many plays need."""
    return -(-num_plays // GROUP)


def _slot_contexts(num_contexts: int, wanted: int | None) -> int:
    """How many whole contexts a slot has room for, in a pool that has room for ``num_contexts``."""
    if wanted is not None:
        return min(wanted, num_contexts)
    return SLOT_CONTEXTS if num_contexts >= SLOT_CONTEXTS * MIN_SLOTS else 1


def _unit_bytes(model: ModelSizes, kv_dtype: KvDtype) -> int:
    config = model.config
    keys_and_values = 2 * config.cached_width * np.dtype(_NUMBERS[kv_dtype]).itemsize
    scales = 2 * config.num_cached_heads * 4 if kv_dtype is KvDtype.INT8 else 0
    return GROUP * (config.num_cached_layers * (keys_and_values + scales) + _TIME_BYTES)


def _row_ranges(lengths: NDArray[np.int64], num_rows: int, num_threads: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows, one for each thread: whole contexts, and about the same number of rows. ``lengths`` i64[B]: rows of each
    context, ``num_rows`` in all.
    """
    num_ranges = max(1, min(num_threads, num_rows // _MIN_ROWS_A_THREAD))
    if num_ranges == 1:
        yield 0, num_rows
        return
    ends, low = np.cumsum(lengths), 0
    for nth in range(1, num_ranges + 1):
        at = int(np.searchsorted(ends, num_rows * nth / num_ranges - 1e-9))
        high = int(ends[min(at, len(ends) - 1)])
        if high > low:
            yield low, high
            low = high
