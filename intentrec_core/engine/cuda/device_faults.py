"""What an error that torch or triton raised says of the device.

    OUT_OF_MEMORY   goes away with a smaller pool
    LOST            a CUDA error is for good: whatever this process asks of the device from then on fails the same way

Both libraries raise RuntimeError. torch's class for device errors is newer than the oldest torch that we take, and cuBLAS,
driver calls and triton do not use it; all of them name CUDA in the first words.
"""

from __future__ import annotations

from enum import Enum

import torch

_LOST = ("CUDA error: ", "CUDA driver error: ", "Triton Error [CUDA]: ")
#: Said outside torch's own allocator: pinned memory, a graph that is instantiated, a kernel that is loaded.
_NO_MEMORY = tuple(f"{prefix}out of memory" for prefix in _LOST)


class DeviceFault(Enum):
    """See the module."""

    OUT_OF_MEMORY = "out of memory"
    LOST = "lost"


def fault_of(error: RuntimeError) -> DeviceFault | None:
    """What is wrong with the device; None when nothing is: the error is of what was computed."""
    # A capture that ran out of memory cannot be ended either, and what says so stands in front of the reason.
    if _no_memory(error) or (error.__context__ is not None and _no_memory(error.__context__)):
        return DeviceFault.OUT_OF_MEMORY
    return DeviceFault.LOST if str(error).startswith(_LOST) else None


def first_line(error: RuntimeError) -> str:
    """What happened; torch goes on for several lines with how to look into it."""
    return str(error).partition("\n")[0]


def _no_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or str(error).startswith(_NO_MEMORY)
