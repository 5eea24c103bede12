"""The torch device that a setting names."""

from __future__ import annotations

import torch

from intentrec_core.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises: ConfigError for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name}: no CUDA device here; use auto or cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}; allowed: auto, cpu, cuda, cuda:N") from error
