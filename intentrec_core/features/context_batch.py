"""Features of plays as padded batches of tensors: the form that a network of torch takes.

Shapes: B contexts, T plays of the longest; Fd dynamic fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.features.columns import Columns


@dataclass(frozen=True, slots=True)
class ContextBatch:
    """Padded features of B contexts, as tensors on one device.

    Shapes: item_row i64[B, T], codes i64[B, T, Fd], ts_s f64[B, T], gap_s f32[B, T], weight f32[B, T], lengths i64[B],
    starts i64[B]. Padding follows the plays: row 0, codes 0, and the time of the last play.
    """

    item_row: Tensor
    codes: Tensor
    ts_s: Tensor
    gap_s: Tensor
    weight: Tensor
    lengths: Tensor
    starts: Tensor

    def to(self, device: torch.device | str) -> ContextBatch:
        """The same batch on ``device``."""
        return ContextBatch(*(getattr(self, name).to(device) for name in self.__slots__))


def collate(columns: Columns) -> ContextBatch:
    """Pads flat features into a batch on the CPU."""
    num, longest = len(columns.lengths), int(columns.lengths.max(initial=0))
    place = np.arange(longest)[None, :]
    valid = place < columns.lengths[:, None]
    heads = np.cumsum(columns.lengths) - columns.lengths
    source = np.minimum(heads[:, None] + place, (heads + columns.lengths - 1)[:, None])  # padding repeats the last play

    def padded(flat: NDArray[np.generic], *, keep_last: bool = False) -> Tensor:
        taken = flat[source]
        if not keep_last:
            taken = np.where(valid.reshape(num, longest, *[1] * (flat.ndim - 1)), taken, np.zeros((), flat.dtype))
        return torch.from_numpy(np.ascontiguousarray(taken))

    return ContextBatch(
        item_row=padded(columns.item_row),
        codes=padded(columns.codes),
        ts_s=padded(columns.ts_s, keep_last=True),
        gap_s=padded(columns.gap_s),
        weight=padded(columns.weight),
        lengths=torch.from_numpy(columns.lengths),
        starts=torch.from_numpy(columns.starts),
    )
