"""Cached keys and values: who holds which slot, the tensors behind the slots, and attention over them.

:class:`SlotAllocator` knows members and holds no tensors; :class:`KvPool` holds tensors and knows no members. A slot is
derived state: losing one costs a prefill, never correctness.

Shapes: L cached layers, N slots, C plays a slot, W width; B requests of one pass, T new plays, S keys seen.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from intentrec_core.attention import SHORT_TERM_LAYER, Geometry
from intentrec_core.decode_attention import decode
from intentrec_core.errors import ConfigError

NO_LABEL = -1


@dataclass(slots=True)
class Slot:
    """What a slot caches: ``length`` plays of a context that begins at ``anchor``, the last of them ``tail``.

    ``tail`` is the packed play itself: a slot whose tail is not in the context any more caches another past.
    """

    index: int
    anchor: int = 0
    length: int = 0
    tail: bytes = b""
    primary: int = NO_LABEL


class SlotAllocator:
    """Members to slots, least recently used out first."""

    def __init__(self, num_slots: int) -> None:
        self._held: OrderedDict[str, Slot] = OrderedDict()
        self._free = list(range(num_slots - 1, -1, -1))
        self.num_slots = num_slots
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, user_id: str) -> bool:
        """Whether a member has a slot; not a use of it."""
        return user_id in self._held

    def find(self, user_id: str) -> Slot | None:
        """A member's slot, now the most recently used; None where there is none."""
        slot = self._held.get(user_id)
        if slot is not None:
            self._held.move_to_end(user_id)
        return slot

    def allocate(self, user_id: str) -> Slot:
        """An empty slot for a member who has none, taken from the least recently used one if need be."""
        if self._free:
            slot = Slot(self._free.pop())
        else:
            _, evicted = self._held.popitem(last=False)
            self.num_evictions += 1
            slot = Slot(evicted.index)
        self._held[user_id] = slot
        return slot

    def release(self, user_id: str) -> None:
        """Frees a member's slot, if there is one."""
        slot = self._held.pop(user_id, None)
        if slot is not None:
            self._free.append(slot.index)

    def users(self) -> list[str]:
        """Members with a slot, most recently used first."""
        return list(reversed(self._held))


class KvPool:
    """Preallocated keys, values and times: f32[L, N, C, W] twice, f64[N, C]."""

    def __init__(
        self, *, budget_bytes: int, num_layers: int, context_size: int, width: int, device: torch.device
    ) -> None:
        slot_bytes = self.slot_bytes(num_layers=num_layers, context_size=context_size, width=width)
        self.num_slots = budget_bytes // slot_bytes
        if self.num_slots < 1:
            raise ConfigError(f"pool_bytes is {budget_bytes}, one member needs {slot_bytes}; allowed: at least that")
        shape = (num_layers, self.num_slots, context_size, width)
        # Zeros, not empty: a masked key weighs 0, but 0 · NaN of memory never written would spoil the sum.
        self.k_LNCW = torch.zeros(shape, device=device)
        self.v_LNCW = torch.zeros(shape, device=device)
        self.ts_NC = torch.zeros(shape[1:3], dtype=torch.float64, device=device)

    @staticmethod
    def slot_bytes(*, num_layers: int, context_size: int, width: int) -> int:
        """Bytes of one slot."""
        return context_size * (2 * num_layers * width * 4 + 8)


class PooledAttend:
    """Attention of new plays over cached ones: writes the new keys and values, then attends to all (see ``Attend``).

    Shapes: slots, starts, lengths i64[B]; ts f64[B, T] of the new plays, padded behind.
    """

    def __init__(
        self, pool: KvPool, slots: Tensor, starts: Tensor, lengths: Tensor, ts_s: Tensor, short_term_window_s: float
    ) -> None:
        step = torch.arange(ts_s.shape[1], device=ts_s.device)
        place_BT = starts[:, None] + step
        new_BT = step < lengths[:, None]
        num_keys = int((starts + lengths).max())
        self._pool, self._slots, self._num_keys = pool, slots, num_keys
        self._new_BT = new_BT
        self._new_slot = slots[:, None].expand_as(place_BT)[new_BT]
        self._new_place = place_BT[new_BT]
        pool.ts_NC[self._new_slot, self._new_place] = ts_s[new_BT]
        key_place = torch.arange(num_keys, device=ts_s.device).expand(len(slots), num_keys)
        key_valid = key_place < (starts + lengths)[:, None]
        key_s = torch.where(key_valid, pool.ts_NC[slots, :num_keys], 0.0)
        self._geometry = Geometry(ts_s, place_BT, key_s, key_place, key_valid, short_term_window_s)
        one_play_on_cpu = ts_s.shape[1] == 1 and ts_s.device.type == "cpu"
        self._in_place = _InPlace(pool, slots, starts + lengths, self._geometry) if one_play_on_cpu else None

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`intentrec_core.attention.Attend`."""
        num, _, heads, depth = q_BTHD.shape
        for memory, new in ((self._pool.k_LNCW, k_BTHD), (self._pool.v_LNCW, v_BTHD)):
            memory[layer][self._new_slot, self._new_place] = new.flatten(2)[self._new_BT]
        if self._in_place is not None:
            return self._in_place(layer, q_BTHD, slopes_2H)
        k, v = (
            memory[layer][self._slots, : self._num_keys].view(num, self._num_keys, heads, depth).transpose(1, 2)
            for memory in (self._pool.k_LNCW, self._pool.v_LNCW)
        )
        bias = self._geometry.bias(layer, slopes_2H)
        return functional.scaled_dot_product_attention(q_BTHD.transpose(1, 2), k, v, attn_mask=bias).transpose(1, 2)


class _InPlace:
    """One new play a member on the CPU: keys and values are read where they lie (:mod:`intentrec_core.decode_attention`)."""

    def __init__(self, pool: KvPool, slots: Tensor, num_keys: Tensor, geometry: Geometry) -> None:
        # Times rise, so what the short-term window leaves out is a prefix.
        too_old = (geometry.seen_BTS & ~geometry.recent_BTS)[:, 0].sum(dim=1)
        self._pool = pool
        self._slots, self._num_keys = slots.numpy(), num_keys.numpy()
        self._first_recent, self._first = too_old.numpy(), np.zeros(len(slots), dtype=np.int64)
        self._log_lag = geometry.log_lag_BTS[:, 0].contiguous().numpy()
        self._log_place = geometry.log_place_BTS[:, 0].contiguous().numpy()

    def __call__(self, layer: int, q_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        out_BHD = decode(
            q_BTHD[:, 0].contiguous().numpy(),
            self._pool.k_LNCW[layer].numpy(),
            self._pool.v_LNCW[layer].numpy(),
            self._slots,
            self._first_recent if layer == SHORT_TERM_LAYER else self._first,
            self._num_keys,
            self._log_lag,
            self._log_place,
            functional.softplus(slopes_2H).numpy(),
        )
        return torch.from_numpy(out_BHD)[:, None]
