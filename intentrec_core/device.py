"""Resolves the ``device`` setting to a torch device."""

from __future__ import annotations

from typing import NamedTuple

import torch

from intentrec_core.errors import ConfigError, EngineError


class DeviceMemory(NamedTuple):
    """A CUDA device's name and memory, in bytes."""

    name: str
    free_bytes: int
    total_bytes: int


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


def device_memory(device: torch.device) -> DeviceMemory | None:
    """What a CUDA device has; None for the CPU.

    Raises: EngineError when the device or its driver does not answer.
    """
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(torch.cuda.get_device_name(device), free, total)
    except RuntimeError as error:
        raise EngineError(f"{device} does not answer: {error}; see the machine's driver log") from error
