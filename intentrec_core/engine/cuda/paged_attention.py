"""Attention of one new play per context over cached keys and values, read in place: one Triton kernel, for CUDA.

    program (context b, head h): stores its own key and value in the slot, then reads every earlier place of the slot in blocks,
    with a running softmax and all sums in float32

Keys, values and times are read in place and never gathered, so a step costs what it reads. Where heads share keys and values,
each head's program reads them, from the device's cache where another one just did, and the first head of a group stores them.
Keys outside the short-term window are not read at all. Scores are those of :mod:`intentrec_core.model.attention`; both biases are
0 between a play and itself.

The keys of a context are not divided among several programs: 64 contexts with 4 heads are twice as many programs as an
H100 runs at once, and with fewer contexts the device is not busy anyway.

Importing this module requires triton, which comes with torch's CUDA builds. It is imported only when there is a CUDA
device.

Shapes: B contexts, H heads, D width of a head, N slots, C plays per slot, W = H · D. The pool holds H / G heads, G the heads of a
group.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from intentrec_core.engine.cuda.kv_pool import KvPool
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.model.config import SHORT_TERM_LAYER, TIME_UNIT_S

#: Numbers in a block of keys: 64 per thread, so that several loads are in flight and keys and values still fit into
#: registers. A block holds whole keys for every head width that is a power of two up to 64.
BLOCK_NUMBERS = 2048
#: Warps per program: with one, no warp waits for another, and the programs of a few hundred contexts fill the device.
NUM_WARPS = 1


@triton.jit
def _append_and_attend(
    q_ptr, k_ptr, v_ptr, q_stride, kv_stride, pool_k_ptr, pool_v_ptr, pool_s_ptr, slot_ptr, place_ptr, slopes_ptr, out_ptr,
    NUM_HEADS: tl.constexpr, GROUP: tl.constexpr, DEPTH: tl.constexpr, CONTEXT_SIZE: tl.constexpr, BLOCK: tl.constexpr,
    WINDOW_S: tl.constexpr, UNIT_S: tl.constexpr,
):  # fmt: skip
    """WINDOW_S is None if a query sees all earlier plays. GROUP heads share keys and values."""
    program = tl.program_id(0)
    context, head = program // NUM_HEADS, program % NUM_HEADS
    slot, place = tl.load(slot_ptr + context), tl.load(place_ptr + context)
    columns = tl.arange(0, DEPTH)
    own = context.to(tl.int64) * kv_stride + head * DEPTH + columns
    q = tl.load(q_ptr + context.to(tl.int64) * q_stride + head * DEPTH + columns).to(tl.float32) / tl.sqrt(float(DEPTH))
    # Rounded as it will be when later plays read it: a play's output does not depend on how its context was divided
    # into passes.
    k = tl.load(k_ptr + own).to(pool_k_ptr.dtype.element_ty)
    v = tl.load(v_ptr + own).to(pool_v_ptr.dtype.element_ty)
    first = (slot * (NUM_HEADS // GROUP) + head // GROUP) * CONTEXT_SIZE
    if head % GROUP == 0:
        tl.store(pool_k_ptr + (first + place) * DEPTH + columns, k)
        tl.store(pool_v_ptr + (first + place) * DEPTH + columns, v)
    slope = slopes_ptr + head
    by_lag = _softplus(tl.load(slope).to(tl.float32))
    by_place = _softplus(tl.load(slope + NUM_HEADS).to(tl.float32))
    own_s = tl.load(pool_s_ptr + slot * CONTEXT_SIZE + place)

    top = tl.sum(q * k.to(tl.float32))
    total = tl.exp(top - top)  # 1, or NaN if the score is NaN
    mixed = v.to(tl.float32)
    for begin in range(0, place, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        seen = at < place
        key_s = tl.load(pool_s_ptr + slot * CONTEXT_SIZE + at, mask=seen, other=0.0)
        lag_s = tl.maximum(own_s - key_s, 0.0)
        if WINDOW_S is not None:
            seen = seen & (lag_s <= WINDOW_S)
        where = (first + at)[:, None] * DEPTH + columns[None, :]
        keys = tl.load(pool_k_ptr + where, mask=seen[:, None], other=0.0).to(tl.float32)
        values = tl.load(pool_v_ptr + where, mask=seen[:, None], other=0.0).to(tl.float32)
        log_lag = tl.log(1.0 + lag_s.to(tl.float32) / UNIT_S)
        log_place = tl.log(1.0 + tl.maximum(place - at, 0).to(tl.float32))
        scores = tl.sum(q[None, :] * keys, axis=1) - by_lag * log_lag - by_place * log_place
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, axis=0))
        kept, shares = tl.exp(top - higher), tl.exp(scores - higher)
        total = total * kept + tl.sum(shares, axis=0)
        mixed = mixed * kept + tl.sum(shares[:, None] * values, axis=0)
        top = higher
    tl.store(out_ptr + program * DEPTH + columns, mixed / total)


@triton.jit
def _softplus(x):
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


class PagedAttend:
    """Attention of one new play per context (see :class:`intentrec_core.model.attention.Attend`). Shapes: slots i64[B]."""

    def __init__(self, pool: KvPool, batch: ContextBatch, slots: Tensor, short_term_window_s: float) -> None:
        self._pool, self._slots, self._places = pool, slots.contiguous(), batch.starts.contiguous()
        self._window_s = short_term_window_s
        pool.ts_NC[slots, batch.starts] = batch.ts_s[:, 0]

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`intentrec_core.model.attention.Attend`; T is 1."""
        num, _, heads, depth = q_BTHD.shape
        (q_stride, *_), (kv_stride, *_) = q_BTHD.stride(), k_BTHD.stride()
        assert v_BTHD.stride() == k_BTHD.stride()
        assert q_BTHD.stride()[2:] == k_BTHD.stride()[2:] == (depth, 1)
        out_BTHD = q_BTHD.new_empty(q_BTHD.shape)
        _append_and_attend[(num * heads,)](
            q_BTHD, k_BTHD, v_BTHD, q_stride, kv_stride,
            self._pool.k_LNHCD[layer], self._pool.v_LNHCD[layer], self._pool.ts_NC,
            self._slots, self._places, slopes_2H, out_BTHD,
            NUM_HEADS=heads, GROUP=heads // self._pool.k_LNHCD.shape[2], DEPTH=depth,
            CONTEXT_SIZE=self._pool.context_size, BLOCK=BLOCK_NUMBERS // depth,
            WINDOW_S=self._window_s if layer == SHORT_TERM_LAYER else None, UNIT_S=TIME_UNIT_S,
            num_warps=NUM_WARPS,
        )  # fmt: skip
        return out_BTHD
