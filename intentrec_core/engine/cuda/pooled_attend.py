"""Attention of new plays over cached ones by gathering: for any number of new plays per context, on any torch device.

Keys and values in half precision are converted when they are gathered, so scores, biases and sums are always float32:
only what is stored is rounded.

Shapes: B contexts of one pass, T new plays, S keys seen, R new plays of all contexts; H heads, D width of a head. The pool may
hold fewer heads, one for each group of heads that share keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from intentrec_core.engine.cuda.kv_pool import KvPool
from intentrec_core.features.context_batch import ContextBatch
from intentrec_core.model.attention import Geometry, for_each_head


class PooledAttend:
    """Stores the new keys and values, then attends to all that are cached (see
    :class:`intentrec_core.model.attention.Attend`).

    Nothing in it waits for the device: the caller passes the places of the new plays in the batch, and the largest
    number of keys seen.

    Shapes: slots i64[B]; new i64[R] twice: context, and place among its new plays.
    """

    def __init__(
        self,
        pool: KvPool,
        batch: ContextBatch,
        slots: Tensor,
        new: tuple[Tensor, Tensor],
        num_keys: int,
        short_term_window_s: float,
    ) -> None:
        which, step = new
        self._pool, self._slots, self._new, self._num_keys = pool, slots, new, num_keys
        self._new_slot, self._new_place = slots[which], batch.starts[which] + step
        pool.ts_NC[self._new_slot, self._new_place] = batch.ts_s[new]
        place_BT = batch.starts[:, None] + torch.arange(batch.ts_s.shape[1], device=slots.device)
        key_place = torch.arange(num_keys, device=slots.device).expand(len(slots), num_keys)
        key_valid = key_place < (batch.starts + batch.lengths)[:, None]
        key_s = torch.where(key_valid, pool.ts_NC[slots, :num_keys], 0.0)
        self._geometry = Geometry(batch.ts_s, place_BT, key_s, key_place, key_valid, short_term_window_s)

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`intentrec_core.model.attention.Attend`."""
        group = q_BTHD.shape[2] // self._pool.k_LNHCD.shape[2]
        gathered: list[Tensor] = []
        for memory_LNHCD, new_BTHD in ((self._pool.k_LNHCD, k_BTHD), (self._pool.v_LNHCD, v_BTHD)):
            memory_NHCD = memory_LNHCD[layer]
            memory_NHCD[self._new_slot, :, self._new_place] = new_BTHD[self._new][:, ::group].to(memory_NHCD.dtype)
            read = memory_NHCD[self._slots, :, : self._num_keys].to(q_BTHD.dtype)
            gathered.append(for_each_head(read, group, dim=1))
        k, v = gathered
        bias = self._geometry.bias(layer, slopes_2H)
        out = functional.scaled_dot_product_attention(q_BTHD.transpose(1, 2), k, v, attn_mask=bias)
        return out.transpose(1, 2)


def attend_to_whole_slots(pool: KvPool, batch: ContextBatch, slots: Tensor, short_term_window_s: float) -> PooledAttend:
    """One new play per context, with shapes that depend on the pool alone: used where the paged kernel cannot run."""
    rows = torch.arange(len(slots), device=slots.device)
    new = (rows, torch.zeros_like(rows))
    return PooledAttend(pool, batch, slots, new, pool.context_size, short_term_window_s)
