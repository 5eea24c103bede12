"""The world of the engine's bench on a CUDA machine. Needs torch and numpy alone: no histories, no vocabulary.

The video domain and a model of the paper's size with random weights: what a step costs does not depend on them. A member's plays
stand at the places of their context, one every four hours and a bit, so that the short-term window of a week holds 38 of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.domain.toml import load_domain
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.cuda.kv_pool import slot_bytes
from intentrec_core.features.columns import Columns
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec

CONFIG = ModelConfig(width=128, num_heads=4, num_layers=2, intent_width=64)
START_S = 1.7e9
GAP_S = 15_800.0


@dataclass(frozen=True)
class MadeUpItems:
    """See :class:`intentrec_core.features.labels.ItemLabels`."""

    codes: NDArray[np.int64]
    multi: dict[str, NDArray[np.float32]]


class GpuWorld:
    """A model on ``device`` for contexts of up to ``context_size`` plays."""

    def __init__(self, device: torch.device, context_size: int, num_items: int) -> None:
        self.domain = replace(load_domain("video"), window=-(-context_size // 2))
        self._num_items, self._random = num_items, np.random.default_rng(0)
        static = [self._random.integers(0, f.num_labels + 1, num_items) for f in self.domain.static_fields]
        multi = {f.name: self._random.random((num_items, f.num_labels)) < 0.1 for f in self.domain.multi_fields}
        items = MadeUpItems(
            np.stack(static, axis=1), {name: labels.astype(np.float32) for name, labels in multi.items()}
        )
        torch.manual_seed(0)
        self.model = IntentRec(CONFIG, self.domain, items).eval().to(device)

    def encoder(self, num_members: int, dtype: torch.dtype, *, graphs: bool = True) -> TorchEncoder:
        """An encoder that has ``num_members`` full contexts cached, of random keys and values."""
        made = TorchEncoder(self.model, num_members * slot_bytes(self.model, dtype), dtype, graphs=graphs)
        for memory in (made.pool.k_LNHCD, made.pool.v_LNHCD):
            memory.normal_()
        places = torch.arange(made.pool.context_size, dtype=torch.float64, device=self.model.device)
        made.pool.ts_NC.copy_(START_S + GAP_S * places)
        return made

    def plays(self, num_members: int, start: int, num: int = 1) -> Columns:
        """``num`` plays of each member, from place ``start`` on."""
        total = num_members * num
        place = np.tile(np.arange(start, start + num), num_members)
        codes = [self._random.integers(0, f.num_labels + 1, total) for f in self.domain.dynamic_fields]
        return Columns(
            item_row=self._random.integers(1, self._num_items, total),
            codes=np.stack(codes, axis=1),
            ts_s=START_S + GAP_S * place,
            gap_s=np.where(place > 0, GAP_S, -1.0).astype(np.float32),
            weight=np.ones(total, dtype=np.float32),
            lengths=np.full(num_members, num),
            starts=np.full(num_members, start),
        )

    def bytes_read(self, length: int, dtype: torch.dtype) -> int:
        """Keys and values that a play behind ``length`` cached ones must see: all; in the short-term layer the recent ones."""
        recent = min(length, int(self.domain.short_term_window_s // GAP_S))
        keys = length * (CONFIG.num_cached_layers - 1) + recent
        return keys * 2 * CONFIG.width * dtype.itemsize
