"""The encoder on any torch device: the model over padded batches, with keys and values in preallocated tensors.

On a GPU this is the encoder that serves: gathering keys and values into a batch is cheaper there than many small kernels.

Shapes: L cached layers, N slots, C plays a slot, W width; B contexts of one pass, T new plays, S keys seen; R new plays of
all contexts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from intentrec_core.attention import Geometry
from intentrec_core.columns import Columns, collate
from intentrec_core.encoder import StepOutput, no_output, slots_within
from intentrec_core.model import IntentRec, ModelOutput

#: Plays (padding included) encoded in one pass. Bounds the memory of a pass, B·T·S biases: 4,096 positions of 128-play
#: contexts in 4 heads are 8 MB a layer.
MAX_POSITIONS = 4096


class TorchEncoder:
    """A model over a pool on its own device."""

    def __init__(self, model: IntentRec, pool_bytes: int) -> None:
        config = model.config
        self._model = model
        self._pool = KvPool(
            budget_bytes=pool_bytes,
            num_layers=config.num_cached_layers,
            context_size=model.domain.context_size,
            width=config.width,
            device=model.device,
        )
        self.num_slots = self._pool.num_slots

    def encode(self, columns: Columns, slots: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """See :class:`intentrec_core.encoder.Encoder`."""
        out = no_output(self._model, len(columns.item_row))
        heads = np.cumsum(columns.lengths) - columns.lengths
        for which in _passes(columns.lengths):
            part = columns.of_contexts(which)
            output = self._run(part, slots[which])
            place = np.arange(len(part.item_row)) - np.repeat(np.cumsum(part.lengths) - part.lengths, part.lengths)
            row = np.repeat(heads[which], part.lengths) + place
            _copy(output, np.repeat(np.arange(len(which)), part.lengths), place, row, wanted, out, self._model)
        return out

    def _run(self, columns: Columns, slots: NDArray[np.int64]) -> ModelOutput:
        device = self._model.device
        batch = collate(columns).to(device)
        window_s = self._model.domain.short_term_window_s
        attend = PooledAttend(
            self._pool, torch.from_numpy(slots).to(device), batch.starts, batch.lengths, batch.ts_s, window_s
        )
        output: ModelOutput = self._model(batch, attend)
        return output


class KvPool:
    """Preallocated keys, values and times: f32[L, N, C, W] twice, f64[N, C]."""

    def __init__(
        self, *, budget_bytes: int, num_layers: int, context_size: int, width: int, device: torch.device
    ) -> None:
        slot_bytes = self.slot_bytes(num_layers=num_layers, context_size=context_size, width=width)
        self.num_slots = slots_within(budget_bytes, slot_bytes)
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

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`intentrec_core.attention.Attend`."""
        num, _, heads, depth = q_BTHD.shape
        for memory, new in ((self._pool.k_LNCW, k_BTHD), (self._pool.v_LNCW, v_BTHD)):
            memory[layer][self._new_slot, self._new_place] = new.flatten(2)[self._new_BT]
        k, v = (
            memory[layer][self._slots, : self._num_keys].view(num, self._num_keys, heads, depth).transpose(1, 2)
            for memory in (self._pool.k_LNCW, self._pool.v_LNCW)
        )
        bias = self._geometry.bias(layer, slopes_2H)
        return functional.scaled_dot_product_attention(q_BTHD.transpose(1, 2), k, v, attn_mask=bias).transpose(1, 2)


def _copy(
    output: ModelOutput,
    which: NDArray[np.int64],
    place: NDArray[np.int64],
    row: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    out: StepOutput,
    model: IntentRec,
) -> None:
    """Copies a pass's real positions to their rows; item vectors, which are the widest, only where they are wanted."""
    device = model.device
    keep = wanted[row]
    asked = (torch.from_numpy(which[keep]).to(device), torch.from_numpy(place[keep]).to(device))
    out.item[row[keep]] = output.item_BTW[asked].float().cpu().numpy()
    if not output.head_logits:
        return
    at = (torch.from_numpy(which).to(device), torch.from_numpy(place).to(device))
    probs = [torch.softmax(logits[at].float(), dim=-1) for logits in output.head_logits]
    out.probs[row] = torch.cat(probs, dim=-1).cpu().numpy()
    out.alpha[row] = output.alpha_BTM[at].float().cpu().numpy()
    out.intent[row] = output.intent_BTP[at].float().cpu().numpy()
    out.primary[row] = primary_labels(output, model.domain.label_offsets)[at].cpu().numpy()


def primary_labels(output: ModelOutput, label_offsets: Sequence[int]) -> Tensor:
    """The primary intent of every play: the likeliest label of the head with the largest alpha, as a flat label id.

    Shapes: i64[B, T].
    """
    likeliest = torch.stack(
        [logit.argmax(dim=-1) + offset for logit, offset in zip(output.head_logits, label_offsets, strict=True)], dim=-1
    )
    return likeliest.gather(-1, output.alpha_BTM.argmax(dim=-1, keepdim=True)).squeeze(-1)


def _passes(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Groups contexts of like length, so that padding at most doubles a pass, and bounds what one pass encodes.

    Shapes: lengths i64[B] -> indices into it.
    """
    group: list[int] = []
    for index in np.argsort(lengths, kind="stable").tolist():
        length = int(lengths[index])
        shortest = int(lengths[group[0]]) if group else length
        if group and (length > 2 * shortest or (shortest == 1 < length) or (len(group) + 1) * length > MAX_POSITIONS):
            yield np.array(group)
            group = []
        group.append(index)
    if group:
        yield np.array(group)
