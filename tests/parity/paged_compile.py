"""Compiles the paged kernel for an H100 on a machine that has none: a program, because nothing here may be interpreted.

Prints one JSON list: for each case its name, the bytes of local memory of a thread, and the widest load from the pool.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from intentrec_core.engine.cuda.paged_attention import BLOCK_NUMBERS, NUM_WARPS, _append_and_attend

H100 = GPUTarget("cuda", 90, 32)


def compiled(dtype: str, depth: int, window_s: float | None, group: int = 1) -> dict[str, object]:
    """The kernel as a launch specialises it: pointers and strides that are multiples of 16."""
    constants = {
        "NUM_HEADS": 4,
        "GROUP": group,
        "DEPTH": depth,
        "CONTEXT_SIZE": 512,
        "BLOCK": BLOCK_NUMBERS // depth,
        "WINDOW_S": window_s,
        "UNIT_S": 60.0,
    }
    types = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "slopes_ptr", "out_ptr"), "*fp32")
    types |= {"pool_k_ptr": f"*{dtype}", "pool_v_ptr": f"*{dtype}", "pool_s_ptr": "*fp64", "q_stride": "i32"}
    types |= {"kv_stride": "i32", "slot_ptr": "*i64", "place_ptr": "*i64"}
    names = _append_and_attend.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in types}
    source = ASTSource(_append_and_attend, signature, constants, aligned)
    kernel = triton.compile(source, target=H100, options={"num_warps": NUM_WARPS})
    widest = max(
        int(vector or 1) * int(bits) // 8
        for vector, bits in re.findall(r"ld\.global(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"])
    )
    return {
        "name": f"{dtype} {depth} {window_s} {group}",
        "stack_bytes": _stack_bytes(kernel),
        "widest_load_bytes": widest,
    }


def _stack_bytes(kernel: triton.compiler.CompiledKernel) -> int:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        told = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    stack, local = re.findall(r"(?:STACK|LOCAL):(\d+)", told.stdout)
    return int(stack) + int(local)


if __name__ == "__main__":
    cases = [*product(("fp32", "fp16", "bf16"), (32,), (None, 3600.0)), ("fp16", 16, None), ("fp16", 64, None)]
    cases += [("fp16", 32, None, 2), ("fp16", 32, None, 4)]
    print(json.dumps([compiled(*case) for case in cases]))
