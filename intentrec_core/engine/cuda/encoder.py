"""The encoder on any torch device: the model itself, with keys and values in preallocated tensors.

    one new play per context    a static step over the paged kernel, replayed as a CUDA graph (decode_step, paged_attention)
    several new plays           padded batches, with keys and values gathered (pooled_attend)

Both use one pool. Without a CUDA device the static step runs directly and gathers whole slots. That is for tests: on a
CPU, workers serve with :mod:`intentrec_core.engine.cpu.encoder`.

Precision: weights, activations and sums are float32, and no dense layer multiplies in a lower precision; times are
float64. ``dtype`` is the type of cached keys and values: half precision halves what a play reads and the memory of a
member. Largest differences from float32, at 3,600 plays of 150 members with a model trained on MovieLens-100K (item
vectors up to 4.2; in brackets the limits of the tests):

    float16     item vectors 0.0003 (0.001)   probabilities 0.00004 (0.0002)   99.997 % of the top ten are the same items
    bfloat16    item vectors 0.0021 (0.008)   probabilities 0.00023 (0.0016)   99.95 %

Keys and values come from normalised layers and stay far below the largest float16. TF32 would differ by 0.0017 and is
not used.

Shapes: B contexts of one pass; R new plays of all contexts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.engine.cuda.decode_step import LARGEST_BUCKET, DecodeStep, MakeAttend
from intentrec_core.engine.cuda.kv_pool import KvPool
from intentrec_core.engine.cuda.pooled_attend import PooledAttend, attend_to_whole_slots
from intentrec_core.engine.encoder import StepOutput, no_output
from intentrec_core.engine.output_rows import as_rows, put_rows, read_rows
from intentrec_core.features.columns import Columns
from intentrec_core.features.context_batch import collate
from intentrec_core.model.model import IntentRec, ModelOutput

#: Positions (padding included) encoded in one pass. This limits the memory of a pass, B·T·S biases: 4,096 positions of
#: 128-play contexts in 4 heads are 8 MB per layer.
MAX_POSITIONS = 4096


class TorchEncoder:
    """A model over a pool on its own device. On CUDA it also has its own stream, because a coming bundle shares the
    device with the bundle in service.

    ``dtype`` None: float16 on CUDA, float32 elsewhere. ``graphs`` False runs each step directly. ``pool``, ``decode``
    and ``stream`` are public for benchmarks and tests.
    """

    def __init__(
        self, model: IntentRec, pool_bytes: int, dtype: torch.dtype | None = None, *, graphs: bool = True
    ) -> None:
        on_cuda = model.device.type == "cuda"
        dtype = dtype or (torch.float16 if on_cuda else torch.float32)
        self._model = model
        self.stream = torch.cuda.Stream(model.device) if on_cuda else None
        if self.stream is not None:
            self.stream.wait_stream(
                torch.cuda.current_stream(model.device)
            )  # the copy of the weights may not be finished
        with torch.cuda.stream(self.stream):
            self.pool = KvPool(model, pool_bytes, dtype)
            self.decode = _decode_step(model, self.pool, graphs=graphs)
        self.num_slots, self.slot_contexts = self.pool.num_slots, 1
        self.slot_units, self.unit_plays = 1, self.pool.context_size

    @torch.inference_mode()
    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """See :class:`intentrec_core.engine.encoder.Encoder`."""
        slots = units  # each is a unit
        if int(columns.lengths.max()) == 1 and len(slots) <= LARGEST_BUCKET:
            with torch.cuda.stream(self.stream):
                return self.decode.run(columns, slots)
        out = no_output(self._model, len(columns.item_row))
        heads = np.cumsum(columns.lengths) - columns.lengths
        single, several = np.flatnonzero(columns.lengths == 1), np.flatnonzero(columns.lengths > 1)
        with torch.cuda.stream(self.stream):
            for low in range(0, len(single), LARGEST_BUCKET):
                which = single[low : low + LARGEST_BUCKET]
                put_rows(self.decode.run(columns.of_contexts(which), slots[which]), heads[which], out)
            for group in _passes(columns.lengths[several]):
                which = several[group]
                chunk = columns.of_contexts(which)
                nth = np.arange(len(chunk.item_row)) - np.repeat(
                    np.cumsum(chunk.lengths) - chunk.lengths, chunk.lengths
                )
                put_rows(self._prefill(chunk, slots[which], nth), np.repeat(heads[which], chunk.lengths) + nth, out)
        return out

    def move(self, from_unit: int, to_unit: int, num_units: int) -> None:
        """See :class:`intentrec_core.engine.encoder.Encoder`."""
        with torch.cuda.stream(self.stream):
            self.pool.copy(from_unit, to_unit, num_units)

    def _prefill(self, columns: Columns, slots: NDArray[np.int64], nth: NDArray[np.int64]) -> StepOutput:
        """The model's output at each play; ``nth`` i64[R] is the play's place among its context's new plays."""
        device, domain = self._model.device, self._model.domain
        which = np.repeat(np.arange(len(slots)), columns.lengths)
        new = (torch.from_numpy(which).to(device), torch.from_numpy(nth).to(device))
        batch = collate(columns).to(device)
        num_keys = int((columns.starts + columns.lengths).max())
        attend = PooledAttend(
            self.pool, batch, torch.from_numpy(slots).to(device), new, num_keys, domain.short_term_window_s
        )
        output: ModelOutput = self._model(batch, attend)
        return read_rows(self._model, as_rows(self._model, output)[new].cpu().numpy())


def _decode_step(model: IntentRec, pool: KvPool, *, graphs: bool) -> DecodeStep:
    make_attend: MakeAttend = attend_to_whole_slots
    if model.device.type != "cuda":
        return DecodeStep(model, pool, make_attend)
    from intentrec_core.engine.cuda.cuda_graph import CudaGraphs

    depth = model.config.width // model.config.num_heads
    if depth & (depth - 1) == 0:  # the kernel's blocks are powers of two
        from intentrec_core.engine.cuda.paged_attention import PagedAttend as make_attend  # needs triton

    decode = DecodeStep(model, pool, make_attend, CudaGraphs() if graphs else None)
    decode.prepare()  # seconds, off the hot path: a bundle's encoder is made before it serves
    return decode


def _passes(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Groups contexts of similar length, so that padding at most doubles a pass, and limits the positions of one pass.

    Shapes: lengths i64[B] -> indices into it.
    """
    group: list[int] = []
    for index in np.argsort(lengths, kind="stable").tolist():
        length = int(lengths[index])
        if group and (length > 2 * int(lengths[group[0]]) or (len(group) + 1) * length > MAX_POSITIONS):
            yield np.array(group)
            group = []
        group.append(index)
    if group:
        yield np.array(group)
