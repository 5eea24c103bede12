"""Dropout with random numbers that are cheap to make on a CPU.

torch draws one 32-bit number per element and stores a float. Two bytes of a 64-bit number are enough to decide, with a
resolution of one in 65,536. Drawing four decisions at a time takes a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_STEPS = 1 << 16
_INT64_MIN = -(1 << 63)


def keep_mask(shape: Sequence[int], ratio: float, device: torch.device) -> Tensor:
    """True where an element is kept. Each element is dropped with probability ``ratio``. Shape: bool[*shape]."""
    num = torch.Size(shape).numel()
    bits = torch.empty((num + 3) // 4, dtype=torch.int64, device=device).random_(_INT64_MIN, None)
    return (bits.view(torch.int16)[:num] >= round(ratio * _STEPS) - _STEPS // 2).view(*shape)


class Dropout(nn.Dropout):
    """torch's dropout, with masks from :func:`keep_mask`."""

    def forward(self, x: Tensor) -> Tensor:
        """In training, drops elements and scales the others so that the expected sum is unchanged; otherwise returns
        ``x``.
        """
        if not self.training or not self.p:
            return x
        return x * keep_mask(x.shape, self.p, x.device).to(x.dtype).mul_(1.0 / (1.0 - self.p))
