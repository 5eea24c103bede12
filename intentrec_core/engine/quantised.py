"""In torch, what int8 makes of keys and values: the reference of the compiled step.

A key and a value are quantised once, when they are written, and are never scaled anew. The play that writes them attends to
them as later plays will, so what is cached depends on the model, the plays and the type alone.

Shapes: B contexts, T plays, H heads, D width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from intentrec_core.kernels.quantise import LARGEST_CODE
from intentrec_core.model.attention import FullAttend


def quantised(x_BTHD: Tensor) -> tuple[Tensor, Tensor]:
    """Codes, as whole numbers of the type of ``x``, and scales. Shapes: -> BTHD, BTH1."""
    scale = x_BTHD.abs().amax(dim=-1, keepdim=True) / LARGEST_CODE
    by = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(x_BTHD / by).clamp(-LARGEST_CODE, LARGEST_CODE), scale


class QuantisedAttend(FullAttend):
    """Attention of every play of a context to itself and to earlier plays, over quantised keys and values."""

    def __call__(self, layer: int, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, slopes_2H: Tensor) -> Tensor:
        """See :class:`~intentrec_core.model.attention.Attend`."""
        (k_codes, k_scale), (v_codes, v_scale) = quantised(k_BTHD), quantised(v_BTHD)
        return super().__call__(layer, q_BTHD, k_codes * k_scale, v_codes * v_scale, slopes_2H)
