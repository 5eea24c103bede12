"""Features of plays in the two forms that encoders take: flat columns on the host, and padded batches on a device.

This module does not know histories, the vocabulary or the domain. :mod:`intentrec_core.features.features` makes the
columns.

Shapes: N plays of all contexts, one context after another; B contexts, T plays of the longest; Fd dynamic fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Columns:
    """Features of N plays, one context after another.

    Shapes: item_row i64[N], codes i64[N, Fd], ts_s f64[N], gap_s f32[N] (-1 for the first play of a context), weight
    f32[N], lengths i64[B] number of plays taken from each context, starts i64[B] position of the first of them in its
    context.
    """

    item_row: NDArray[np.int64]
    codes: NDArray[np.int64]
    ts_s: NDArray[np.float64]
    gap_s: NDArray[np.float32]
    weight: NDArray[np.float32]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]

    def of_contexts(self, which: NDArray[np.int64]) -> Columns:
        """The columns of selected contexts, in the given order. Shapes: which i64[B']."""
        lengths = self.lengths[which]
        heads = (np.cumsum(self.lengths) - self.lengths)[which]
        rows = np.repeat(heads - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        return self.at(rows, lengths, self.starts[which])

    def at(self, rows: NDArray[np.int64], lengths: NDArray[np.int64], starts: NDArray[np.int64]) -> Columns:
        """The plays at ``rows``, divided into contexts of ``lengths``. Shapes: i64[N'], i64[B'], i64[B']."""
        return Columns(
            item_row=self.item_row[rows],
            codes=self.codes[rows],
            ts_s=self.ts_s[rows],
            gap_s=self.gap_s[rows],
            weight=self.weight[rows],
            lengths=lengths,
            starts=starts,
        )


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
