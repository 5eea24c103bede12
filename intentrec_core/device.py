"""Resolves the ``device`` setting, and says what a CUDA device has.

torch is imported only where there may be a CUDA device, or one is asked for: the import takes seconds, and a worker on a CPU does
not need it. It need not be installed there.
"""

from __future__ import annotations

import ctypes
import importlib.util
from typing import NamedTuple

from intentrec_core.errors import ConfigError, EngineError

CPU = "cpu"
#: What to do where torch is needed and missing.
INSTALL_TORCH = "install intentrec[torch], or use the image that has torch"
NEEDS_TORCH = f"this command needs torch, which is not installed: {INSTALL_TORCH}"
#: The driver's library. Without it, torch finds no CUDA device.
_DRIVER = "libcuda.so.1"


class DeviceMemory(NamedTuple):
    """A CUDA device's name and memory, in bytes."""

    name: str
    free_bytes: int
    total_bytes: int


def resolve_device(name: str) -> str:
    """The name of a device, as torch reads it: ``cpu``, ``cuda`` or ``cuda:N``. ``auto`` means CUDA if the machine has a CUDA
    device and torch is installed, else the CPU.

    Raises: ConfigError when the name is not a device, this machine does not have it, or torch is not installed.
    """
    if name == CPU or (name == "auto" and not (has_driver() and has_torch())):
        return CPU
    if not has_torch():
        raise ConfigError(f"device {name}: torch is not installed; use auto or cpu, or {INSTALL_TORCH}")
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else CPU
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {name}: this machine has no CUDA device; use auto or cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}; allowed: auto, cpu, cuda, cuda:N") from error
    return CPU if device.type == CPU else str(device)


def device_memory(device: str) -> DeviceMemory | None:
    """What a CUDA device has; None for the CPU.

    Raises: EngineError when the device or its driver does not answer.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    try:
        free, total = torch.cuda.mem_get_info(torch.device(device))
        return DeviceMemory(torch.cuda.get_device_name(device), free, total)
    except RuntimeError as error:
        raise EngineError(f"{device} does not answer: {error}; see the machine's driver log") from error


def has_torch() -> bool:
    """Whether torch is installed. Does not import it."""
    return importlib.util.find_spec("torch") is not None


def require_torch() -> None:
    """Called before long work that ends in torch.

    Raises: ConfigError when torch is not installed.
    """
    if not has_torch():
        raise ConfigError(NEEDS_TORCH)


def has_driver() -> bool:
    """Whether CUDA's driver is installed."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True
