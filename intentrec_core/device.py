"""Resolves the ``device`` setting to a torch device."""

from __future__ import annotations

import torch

from intentrec_core.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Resolves a device name. ``auto`` means CUDA if the machine has a CUDA device, else the CPU.

    Raises: ConfigError when the name is not a device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name}: this machine has no CUDA device; use auto or cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}; allowed: auto, cpu, cuda, cuda:N") from error
