"""What an int8 cache holds, and full recomputation over it: every key and value of the reference is taken from the cache.

A flipped quantum (a number so near to the middle of two codes that two orders of a sum round it to different sides) differs by
one, in few places, and changes nothing here: both sides go on with the cache's code. A play in the wrong place, of another member
or with another play's scale differs in most places, by more than one, or in its scales.

Shapes: L cached layers, T plays, H heads, K heads of keys and values, D width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.engine.cpu.decode_attention import GROUP
from intentrec_core.engine.cpu.encoder import CpuEncoder, units_of
from intentrec_core.engine.encoder import StepOutput
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.quantised import quantised
from intentrec_core.features.columns import Columns
from intentrec_core.model.attention import FullAttend
from intentrec_core.model.weights import ModelWeights

#: A scale is a largest number over 127: sums in two orders differ by a millionth.
SCALE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class CachedCodes:
    """Keys and values of one context. Shapes: codes f32[L, T, K, D], scales f32[L, T, K, 1]."""

    k: NDArray[np.float32]
    v: NDArray[np.float32]
    k_scales: NDArray[np.float32]
    v_scales: NDArray[np.float32]

    def first(self, num_plays: int) -> CachedCodes:
        """Those of the first plays."""
        return CachedCodes(*(part[:, :num_plays] for part in (self.k, self.v, self.k_scales, self.v_scales)))


def cached_codes(encoder: CpuEncoder, unit: int, num_plays: int) -> CachedCodes:
    """A copy of what the part that begins at a unit holds of its first plays."""
    cache, layers = encoder._cache, len(encoder._cache.k)
    heads, plays = cache.k_scales.shape[1], slice(unit * GROUP, unit * GROUP + num_plays)
    k = cache.k[:, unit : unit + units_of(num_plays)].transpose(0, 1, 3, 2).reshape(layers, -1, cache.v.shape[-1])
    codes = [
        part.astype(np.float32).reshape(layers, num_plays, heads, -1) for part in (k[:, :num_plays], cache.v[:, plays])
    ]
    scales = [part[:, :, plays].transpose(0, 2, 1)[..., None].copy() for part in (cache.k_scales, cache.v_scales)]
    return CachedCodes(*codes, *scales)


class RecordingEncoder(CpuEncoder):
    """An int8 encoder that keeps a copy of each context's part after each call, in the order of the contexts it was given."""

    def __init__(
        self, model: ModelWeights, pool_bytes: int, *, num_threads: int = 1, slot_contexts: int | None = None
    ) -> None:
        self.recorded: list[CachedCodes] = []
        super().__init__(model, pool_bytes, KvDtype.INT8, num_threads=num_threads, slot_contexts=slot_contexts)
        self.recorded.clear()

    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        out = super().encode(columns, units, wanted)
        ends = (columns.starts + columns.lengths).tolist()
        self.recorded += [cached_codes(self, unit, end) for unit, end in zip(units.tolist(), ends, strict=True)]
        return out


@dataclass
class Differences:
    """Codes that were compared, how many differ, and by how much at most."""

    num_places: int = 0
    num_different: int = 0
    largest: float = 0.0

    def add(self, codes: Tensor, cached: Tensor) -> None:
        """Compares codes of the reference with those of the cache."""
        difference = (codes - cached).abs()
        self.num_places += difference.numel()
        self.num_different += int((difference > 0).sum())
        self.largest = max(self.largest, float(difference.max()))

    def include(self, other: Differences) -> None:
        """Adds what was compared elsewhere."""
        self.num_places += other.num_places
        self.num_different += other.num_different
        self.largest = max(self.largest, other.largest)

    @property
    def share(self) -> float:
        """The share of codes that differ."""
        return self.num_different / self.num_places


class _Compared(FullAttend, ABC):
    """Attention of one context whose keys and values are quantised and compared with those of a cache."""

    def __init__(self, ts_s: Tensor, window_s: float, cached: CachedCodes, found: Differences) -> None:
        super().__init__(ts_s, window_s)
        self._cached, self._found = cached, found

    @abstractmethod
    def _dequantised(self, x_BTKD: Tensor, codes: NDArray[np.float32], scales: NDArray[np.float32]) -> Tensor:
        """What is attended to, of a layer's keys or values and of what the cache has of them. Shapes: f32[1, T, K, D]."""

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        cached, group = self._cached, k_BTHD.shape[2] // self._cached.k.shape[2]
        k = self._dequantised(k_BTHD[:, :, ::group], cached.k[layer], cached.k_scales[layer])
        v = self._dequantised(v_BTHD[:, :, ::group], cached.v[layer], cached.v_scales[layer])
        k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
        return super().__call__(layer, q_BTHD, k, v, slopes_2H)


class OverTheCache(_Compared):
    """Attends to the cache's codes and scales, which must be its own but for flipped quanta."""

    def _dequantised(self, x_BTKD: Tensor, codes: NDArray[np.float32], scales: NDArray[np.float32]) -> Tensor:
        own_codes, own_scales = quantised(x_BTKD)
        np.testing.assert_allclose(scales, own_scales[0].numpy(), rtol=SCALE_TOLERANCE, err_msg="scales in the cache")
        cached = torch.from_numpy(codes)[None]
        self._found.add(own_codes, cached)
        return cached * torch.from_numpy(scales)[None]


class BesideTheCache(_Compared):
    """Attends to its own codes and scales, so that a flipped quantum goes on to what follows from it."""

    def _dequantised(self, x_BTKD: Tensor, codes: NDArray[np.float32], scales: NDArray[np.float32]) -> Tensor:
        own_codes, own_scales = quantised(x_BTKD)
        self._found.add(own_codes, torch.from_numpy(codes)[None])
        return own_codes * own_scales


def attend_to(kind: type[_Compared], cached: CachedCodes, found: Differences) -> Callable[[Tensor, float], FullAttend]:
    """What :func:`intentrec_core.engine.reference.recompute` takes as ``make_attend``, for one context."""
    return lambda ts_s, window_s: kind(ts_s, window_s, cached, found)
