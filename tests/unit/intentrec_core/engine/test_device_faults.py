"""How errors of torch and triton are classified by their text, and how the engine reacts."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from intentrec_core.engine.cuda.device_faults import DeviceFault, fault_of
from intentrec_core.engine.engine import EncodeRequest
from intentrec_core.errors import DeviceLost
from intentrec_core.history.history import History
from tests.worlds.faulty_encoder import FaultyEncoder, device_lost
from tests.worlds.tiny_world import TinyWorld

LOST, NO_MEMORY = DeviceFault.LOST, DeviceFault.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (device_lost(), LOST),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), LOST),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), LOST),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), LOST),
        (RuntimeError("CUDA driver error: device not ready"), LOST),
        (RuntimeError("Triton Error [CUDA]: unspecified launch failure"), LOST),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), NO_MEMORY),
        (torch.AcceleratorError("CUDA error: out of memory"), NO_MEMORY),
        (RuntimeError("CUDA driver error: out of memory"), NO_MEMORY),
        (RuntimeError("Triton Error [CUDA]: out of memory"), NO_MEMORY),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), None),
        (RuntimeError("expected scalar type Float, not a CUDA error: "), None),
    ],
    ids=lambda value: str(value)[:50],
)
def test_errors_are_told_apart(error: RuntimeError, fault: DeviceFault | None) -> None:
    assert fault_of(error) is fault


def test_an_engine_whose_device_is_lost_says_so_once_and_keeps_nobody(world: TinyWorld) -> None:
    engine, history, calls = world.engine(world.model()), History(), list[int]()
    history.apply(world.layout, world.play(1, 1, 0.0), 0)
    request = EncodeRequest("ann", 0, bytes(history.events), 0)
    engine.encode([request])
    num_slots = engine.num_slots
    engine.encoder = FaultyEncoder(engine.encoder, raises=lambda *_: not calls.append(1), error=device_lost)
    with pytest.raises(DeviceLost, match="the device cpu is lost: CUDA error: unspecified launch failure"):
        engine.encode([request])
    assert calls == [1]
    assert not engine.caches("ann")
    assert engine.num_slots == num_slots


#: What is let go of on a lost device asks that device once more: torch aborts the process then.
END_WITH_A_LOST_DEVICE = """
import os
from intentrec_core.errors import DeviceLost
from stream.cli import root

class OnTheDevice:
    def __del__(self):
        os.abort()

kept = OnTheDevice()

def command(*arguments, **named):
    raise DeviceLost("the device cuda:0 is lost")

root.app = command
root.main([])
"""


def test_a_lost_device_ends_the_process_with_its_exit_code_whatever_lies_on_the_device() -> None:
    ran = subprocess.run([sys.executable, "-c", END_WITH_A_LOST_DEVICE], capture_output=True, text=True, check=False)
    assert ran.returncode == DeviceLost.exit_code, ran.stderr
    assert "the device cuda:0 is lost" in ran.stderr
