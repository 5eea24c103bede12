"""Counts of plays at the moments of targets, as tensors on the model's device.

Shapes: N targets, R item rows, C columns (:mod:`intentrec_core.features.play_counts`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.play_counts import PlayCounts
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.members import MemberPlays


@dataclass(frozen=True, slots=True)
class CountsAt:
    """Counts as of the times ``ts_s`` f64[N] of N targets. None of a target's own time or later is in them."""

    counts: PlayCounts
    ts_s: NDArray[np.float64]
    device: torch.device

    def columns(self, rows: Tensor | None = None, which: slice = slice(None)) -> Tensor:
        """Columns of all items, or of some, at some of the targets. Shapes: i64[R] -> f32[n, C, R]."""
        picked = None if rows is None else rows.cpu().numpy()
        return torch.from_numpy(self.counts.columns(self.ts_s[which], picked)).to(self.device)

    def of_pairs(self, rows: Tensor) -> Tensor:
        """Columns of one item at each target. Shapes: i64[N] -> f32[N, C]."""
        return torch.from_numpy(self.counts.of_pairs(self.ts_s, rows.cpu().numpy())).to(self.device)


def counts_for(model: IntentRec, features: FeatureBuilder, members: MemberPlays) -> PlayCounts | None:
    """The counts that a model needs, of all plays of the members; None for a model without counts."""
    if model.count_gate is None:
        return None
    rows = features.rows(members.events["item_hash"])
    ts_s = members.events["ts_ms"] / 1000.0
    return PlayCounts(rows, ts_s, model.num_rows, refresh_s=model.config.count_refresh_s)
