"""The kernel that a CUDA device runs, without one: its numbers in Triton's interpreter, and that it compiles for a device.

Tolerance: 5e-6 absolute. Both sides sum in float32, over at most 320 keys, in another order; scores are below 20, so a share is
exact to 1e-6 of itself, and values are below 5. What both keep must be the same bits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("triton", reason="comes with torch's CUDA builds")

TOLERANCE = 5e-6
#: As everywhere.
MODEL_TOLERANCE = 1e-4


def run_module(name: str) -> Any:
    """Runs a module of this folder in a process of its own; returns the JSON of its last line."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.parity.{name}"], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_kernel_equals_gathering_for_every_width_and_dtype_and_in_a_whole_model() -> None:
    found = run_module("paged_kernel")
    assert len(found["kernel"]) == 12
    for case in found["kernel"]:
        assert case["outputs"] <= TOLERANCE, case
        assert case["kept"] == case["times"] == 0, case
    assert found["model"] <= MODEL_TOLERANCE


def test_the_kernel_compiles_for_an_h100_and_keeps_to_its_registers() -> None:
    """No local memory: what spills is read and written once more."""
    cases = run_module("paged_compile")
    assert len(cases) == 10
    for case in cases:
        assert case["stack_bytes"] == 0, case
        assert case["widest_load_bytes"] == 16, case
