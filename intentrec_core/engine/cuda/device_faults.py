"""Classifies an error that torch or triton raised: whether the device is out of memory, or lost.

    OUT_OF_MEMORY   a smaller pool avoids it
    LOST            a CUDA error is permanent: every later call of this process to the device fails in the same way

Both libraries raise RuntimeError. torch's own class for device errors is newer than the oldest supported torch, and
cuBLAS, driver calls and triton do not use it. All of them mention CUDA at the start of the message.
"""

from __future__ import annotations

import sys
from enum import Enum

_LOST = ("CUDA error: ", "CUDA driver error: ", "Triton Error [CUDA]: ")
#: Raised outside torch's own allocator: by pinned memory, the instantiation of a graph, or the loading of a kernel.
_NO_MEMORY = tuple(f"{prefix}out of memory" for prefix in _LOST)


class DeviceFault(Enum):
    """The two kinds of device failure; see the module's docstring."""

    OUT_OF_MEMORY = "out of memory"
    LOST = "lost"


def fault_of(error: RuntimeError) -> DeviceFault | None:
    """The device failure that an error reports; None for an error that is not about the device, but about the
    computation.
    """
    # A capture that runs out of memory cannot be ended either: the error of ending it is raised, and the reason is its
    # context.
    if _no_memory(error) or (error.__context__ is not None and _no_memory(error.__context__)):
        return DeviceFault.OUT_OF_MEMORY
    return DeviceFault.LOST if str(error).startswith(_LOST) else None


def first_line(error: RuntimeError) -> str:
    """The first line of the message; torch adds several lines about debugging."""
    return str(error).partition("\n")[0]


def _no_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # None: torch was never imported, so this is not its error
    return (torch is not None and isinstance(error, torch.OutOfMemoryError)) or str(error).startswith(_NO_MEMORY)
