"""Preallocated tensors for cached keys, values and times, by slot. :mod:`intentrec_core.engine.slots` assigns slots to
members.
"""

from __future__ import annotations

import torch

from intentrec_core.engine.encoder import contexts_within
from intentrec_core.model.config import ModelSizes
from intentrec_core.model.model import IntentRec


class KvPool:
    """Keys and values in ``dtype``, times in float64. It has one slot more than it gives to members: plays that fill up
    a batch write to it.

    Each head's keys of a slot are contiguous, so that attention reads one stretch of memory.

    Shapes: L cached layers, N slots, H heads of keys and values, C plays per slot, D width of a head: k and v
    [L, N + 1, H, C, D], ts f64[N + 1, C].
    """

    def __init__(self, model: IntentRec, budget_bytes: int, dtype: torch.dtype) -> None:
        config, device = model.config, model.device
        self.context_size = model.domain.context_size
        self.num_slots = contexts_within(budget_bytes, slot_bytes(model, dtype))
        shape = (
            config.num_cached_layers,
            self.num_slots + 1,
            config.num_cached_heads,
            self.context_size,
            config.width // config.num_heads,
        )
        # Zeros, not uninitialised memory: a masked key has weight 0, but 0 · NaN would spoil the sum.
        self.k_LNHCD = torch.zeros(shape, dtype=dtype, device=device)
        self.v_LNHCD = torch.zeros(shape, dtype=dtype, device=device)
        self.ts_NC = torch.zeros(self.num_slots + 1, self.context_size, dtype=torch.float64, device=device)

    @property
    def spare_slot(self) -> int:
        """The slot that belongs to no member."""
        return self.num_slots

    def copy(self, from_slot: int, to_slot: int, num_slots: int) -> None:
        """Copies keys, values and times of some slots to others, which may overlap with them."""
        held, to = slice(from_slot, from_slot + num_slots), slice(to_slot, to_slot + num_slots)
        for tensor in (self.k_LNHCD, self.v_LNHCD):
            tensor[:, to] = tensor[:, held].clone()
        self.ts_NC[to] = self.ts_NC[held].clone()


def slot_bytes(model: ModelSizes, dtype: torch.dtype) -> int:
    """Bytes of one slot."""
    config = model.config
    return model.domain.context_size * (2 * config.num_cached_layers * config.cached_width * dtype.itemsize + 8)
