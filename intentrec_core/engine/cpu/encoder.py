"""The encoder on the CPU: the compiled step (:mod:`intentrec_core.engine.cpu.step`) over numpy arrays, members
shared out among threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.engine.cpu.block import BlockRows, KvCache, make_room
from intentrec_core.engine.cpu.decode_attention import GROUP
from intentrec_core.engine.cpu.step import encode_rows
from intentrec_core.engine.cpu.weights import step_weights
from intentrec_core.engine.encoder import StepOutput, no_output, slots_within
from intentrec_core.features.columns import Columns
from intentrec_core.kernels.simd import aligned_zeros
from intentrec_core.model.model import IntentRec

#: Handing rows to another thread costs as much as encoding one or two of them.
_MIN_ROWS_A_THREAD = 4


class CpuEncoder:
    """Keys, values and times in numpy arrays. Memory is taken as slots are first used. Uses as many threads as torch does.

    Making one compiles the step where this machine has not done so yet: a worker that is ready answers at once.
    """

    def __init__(self, model: IntentRec, pool_bytes: int) -> None:
        config, context_size = model.config, model.domain.context_size
        self.num_slots = slots_within(pool_bytes, slot_bytes(model))
        self._model = model
        self._weights = step_weights(model)
        groups, layers = _num_groups(context_size), config.num_cached_layers
        self._cache = KvCache(
            k=aligned_zeros(layers, self.num_slots, groups, config.width, GROUP),
            v=aligned_zeros(layers, self.num_slots, context_size, config.width),
            ts_s=np.zeros((self.num_slots, context_size)),
            log_place=np.log1p(np.arange(context_size)[::-1]).astype(np.float32),
        )
        self._num_threads = torch.get_num_threads()
        self._rooms = [make_room(self._weights, self._cache) for _ in range(self._num_threads)]
        self._threads = ThreadPoolExecutor(max(1, self._num_threads - 1), thread_name_prefix="encode")
        self.encode(_one_play(model), np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool))

    def encode(self, columns: Columns, slots: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """See :class:`intentrec_core.engine.encoder.Encoder`."""
        which = np.repeat(np.arange(len(slots)), columns.lengths)
        ends = np.cumsum(columns.lengths)
        nth = np.arange(len(which)) - (ends - columns.lengths)[which]
        rows = BlockRows(
            item_row=columns.item_row,
            codes=columns.codes,
            ts_s=columns.ts_s,
            gap_s=columns.gap_s,
            slot=slots[which],
            place=columns.starts[which] + nth,
            wanted=wanted,
        )
        out = no_output(self._model, len(which))
        (begin, end), *others = _shares(ends, self._num_threads)
        weights, cache, rooms = self._weights, self._cache, self._rooms
        running = [
            self._threads.submit(encode_rows, weights, cache, rows, low, high, room, out)
            for (low, high), room in zip(others, rooms[1:], strict=False)
        ]
        encode_rows(weights, cache, rows, begin, end, rooms[0], out)
        for share in running:
            share.result()
        return out


def _one_play(model: IntentRec) -> Columns:
    """A play of no item; what it leaves in a slot is nobody's."""
    return Columns(
        item_row=np.zeros(1, dtype=np.int64),
        codes=np.zeros((1, len(model.domain.dynamic_fields)), dtype=np.int64),
        ts_s=np.zeros(1),
        gap_s=np.full(1, -1, dtype=np.float32),
        weight=np.ones(1, dtype=np.float32),
        lengths=np.ones(1, dtype=np.int64),
        starts=np.zeros(1, dtype=np.int64),
    )


def slot_bytes(model: IntentRec) -> int:
    """Bytes of one slot."""
    config, context_size = model.config, model.domain.context_size
    keys_and_values = (_num_groups(context_size) * GROUP + context_size) * config.width * 4
    return config.num_cached_layers * keys_and_values + context_size * 8


def _num_groups(context_size: int) -> int:
    return -(-context_size // GROUP)


def _shares(ends: NDArray[np.int64], num_threads: int) -> Iterator[tuple[int, int]]:
    """Rows of whole contexts for each thread, about as many for each. ``ends`` i64[B]: where each context's rows end."""
    num_rows = int(ends[-1])
    num_shares = max(1, min(num_threads, num_rows // _MIN_ROWS_A_THREAD))
    low = 0
    for share in range(1, num_shares + 1):
        at = int(np.searchsorted(ends, num_rows * share / num_shares - 1e-9))
        high = int(ends[min(at, len(ends) - 1)])
        if high > low:
            yield low, high
            low = high
