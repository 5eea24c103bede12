"""Features of plays as flat columns on the host: the form that the compiled encoder takes.

A network of torch takes padded batches: :mod:`intentrec_core.features.context_batch`.

This module does not know histories, the vocabulary or the domain. :mod:`intentrec_core.features.features` makes the
columns.

Shapes: N plays of all contexts, one context after another; B contexts, T plays of the longest; Fd dynamic fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
