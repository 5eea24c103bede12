"""One new play of each of many contexts, as a step with fixed shapes and addresses, so that a device can replay it.

    plays ──▶ staged (host) ──one copy──▶ plays (device) ──step──▶ outputs (device) ──one copy──▶ returned (host)

The step only reads and writes buffers. No shape in it depends on data, and nothing in it waits for the device. It can
therefore be captured as a CUDA graph, once per bucket size; without a graph the same function runs directly. The plays
that fill up a bucket read no member's slot and write to the pool's spare slot.

Copies and computation share one stream. A step's copies are for that step alone: 0.4 MB in and 4 MB out for 4,096
plays, which takes a tenth of a millisecond next to two of computation. Overlapping them would gain nothing, because the
caller waits for the outputs before the next plays are known.

Shapes: B plays, Fd dynamic fields; O output columns, as in :mod:`intentrec_core.engine.output_rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.engine.cuda.kv_pool import KvPool
from intentrec_core.engine.encoder import StepOutput
from intentrec_core.engine.output_rows import as_rows, read_rows, row_width
from intentrec_core.features.columns import Columns
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.model.attention import Attend
from intentrec_core.model.model import IntentRec, ModelOutput

#: Sizes that a step may have: nine graphs, and only a small step is filled up by more than half.
BUCKETS = tuple(1 << power for power in range(4, 13))
SMALLEST_BUCKET, LARGEST_BUCKET = BUCKETS[0], BUCKETS[-1]
#: Columns of a staged play, eight bytes each; the codes of the fields follow. Times are float64 in the same bits.
_SLOT, _PLACE, _ITEM, _TIME, _GAP, _CODES = range(6)

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a step, which it may run, and returns a function that replays it."""


class MakeAttend(Protocol):
    """Makes the attention of one new play per context."""

    def __call__(self, pool: KvPool, batch: ContextBatch, slots: Tensor, short_term_window_s: float) -> Attend:
        """Shapes: slots i64[B]."""
        ...


class DecodeStep:
    """A model's step over its pool, and the buffers it uses. Without ``capture``, each step runs directly."""

    def __init__(self, model: IntentRec, pool: KvPool, make_attend: MakeAttend, capture: Capture | None = None) -> None:
        self._model, self._pool, self._make_attend, self._capture = model, pool, make_attend, capture
        self._waits = model.device.type == "cuda"
        num_columns = _CODES + len(model.domain.dynamic_fields)
        self._staged = torch.zeros(LARGEST_BUCKET, num_columns, dtype=torch.int64, pin_memory=self._waits)
        self._plays = torch.zeros_like(self._staged, device=model.device)
        self._plays[:, _SLOT] = pool.spare_slot  # a step that is only tried writes to no member's slot
        self._returned = torch.zeros(LARGEST_BUCKET, row_width(model), pin_memory=self._waits)
        self._outputs = torch.zeros_like(self._returned, device=model.device)
        self._captured: dict[int, Callable[[], None]] = {}

    def prepare(self) -> None:
        """Captures the step of every bucket now, so that no play waits for a capture."""
        for bucket in BUCKETS:
            self._captured_step(bucket)

    def run(self, columns: Columns, slots: NDArray[np.int64]) -> StepOutput:
        """The model's output at the one new play of each context. It is valid until the next call, which overwrites it.

        Shapes: columns of B ≤ LARGEST_BUCKET contexts, slots i64[B].
        """
        num = len(slots)
        bucket = bucket_of(num)
        self._stage(columns, slots, bucket)
        self.queue(bucket)
        if self._waits:
            torch.cuda.current_stream().synchronize()
        return read_rows(self._model, self._returned[:num].numpy())

    def queue(self, bucket: int) -> None:
        """Queues a step over the staged plays, with its copies in and out. Does not wait for the device."""
        self._plays[:bucket].copy_(self._staged[:bucket], non_blocking=True)
        self._captured_step(bucket)()
        self._returned[:bucket].copy_(self._outputs[:bucket], non_blocking=True)

    def _captured_step(self, bucket: int) -> Callable[[], None]:
        step = self._captured.get(bucket)
        if step is None:
            step = partial(self._step, bucket)
            if (
                self._capture is not None
            ):  # without a capture nothing is kept: the reference cycle would hold this object's memory
                step = self._captured[bucket] = self._capture(step)
        return step

    def _stage(self, columns: Columns, slots: NDArray[np.int64], bucket: int) -> None:
        num, staged = len(slots), self._staged.numpy()
        staged[:num, _SLOT], staged[:num, _PLACE] = slots, columns.starts
        staged[:num, _ITEM], staged[:num, _CODES:] = columns.item_row, columns.codes
        numbers = staged.view(np.float64)
        numbers[:num, _TIME], numbers[:num, _GAP] = columns.ts_s, columns.gap_s
        staged[num:bucket] = 0
        staged[num:bucket, _SLOT] = self._pool.spare_slot

    @torch.no_grad()
    def _step(self, bucket: int) -> None:
        """The step itself. It may run more than once on the same plays: it writes the same values to the same places."""
        plays = self._plays[:bucket]
        numbers = plays.view(torch.float64)
        slots = plays[:, _SLOT]
        batch = ContextBatch(
            item_row=plays[:, _ITEM, None],
            codes=plays[:, None, _CODES:],
            ts_s=numbers[:, _TIME, None],
            gap_s=numbers[:, _GAP, None].float(),
            weight=self._outputs.new_ones(bucket, 1),
            lengths=torch.ones_like(slots),
            starts=plays[:, _PLACE],
        )
        window_s = self._model.domain.short_term_window_s
        output: ModelOutput = self._model(batch, self._make_attend(self._pool, batch, slots, window_s))
        self._outputs[:bucket] = as_rows(self._model, output)[:, 0]


def bucket_of(num: int) -> int:
    """The smallest bucket that holds ``num`` plays."""
    assert 0 < num <= LARGEST_BUCKET
    return max(SMALLEST_BUCKET, 1 << (num - 1).bit_length())
