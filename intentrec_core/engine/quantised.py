"""The type of cached keys and values, and in torch what int8 makes of them: the reference of the compiled step.

A key and a value are quantised once, when they are written, and are never scaled anew. The play that writes them attends to
them as later plays will, so what is cached depends on the model, the plays and the type alone.

Shapes: B contexts, T plays, H heads, D width of a head.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from intentrec_core.errors import ConfigError
from intentrec_core.kernels.quantise import LARGEST_CODE
from intentrec_core.model.attention import FullAttend


class KvDtype(StrEnum):
    """The type of cached keys and values on the CPU. ``int8`` has a float32 scale for each play, layer and head."""

    FLOAT32 = "float32"
    INT8 = "int8"

    @classmethod
    def parse(cls, name: str) -> KvDtype:
        """The type of a name. Raises: ConfigError with what is allowed."""
        if name not in tuple(cls):
            raise ConfigError(f"kv_dtype is {name!r}; allowed: {', '.join(cls)}")
        return cls(name)


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
