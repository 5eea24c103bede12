"""What a worker on a CPU and a gateway import, and what they do with a bundle, does not need torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from intentrec_core import device
from tests.worlds.bundle_world import make_bundle
from tests.worlds.tiny_world import START_MS, TinyWorld

ROOT = Path(__file__).parents[4]

#: A worker's pipeline answers a play, and a gateway reads the bundle that answered it.
SERVE = """
import sys
from dataclasses import dataclass
from pathlib import Path

import stream.app, stream.worker_process, stream.gateway.process
from intentrec_core.bundle.contents import load_bundle
from stream.bundles.serving import load_serving
from stream.gateway.bundle_view import BundleView
from stream.ops.metrics import Metrics
from stream.pipeline.pipeline import Pipeline, PipelineConfig


@dataclass
class Record:
    value: bytes
    timestamp: int
    offset: int = 0
    key: bytes = b"ann"
    partition: int = 0
    topic: str = "plays"
    headers: tuple = ()


folder, at_ms = Path(sys.argv[1]), int(sys.argv[2])
serving = load_serving(folder, device=sys.argv[3], pool_bytes=2 << 20)
pipeline = Pipeline(serving, PipelineConfig(num_partitions=1), Metrics())
pipeline.open_partition(0, {})
play = b'{"user_id":"ann","item_id":"item-3","event_id":"e","ts":%d}' % at_ms
(result,) = pipeline.process({0: [Record(play, at_ms + 1000)]})
print(len(result.outputs), b'"fallback":"none"' in result.outputs[0].value, BundleView.of(load_bundle(folder)).version)
print("torch" in sys.modules)
"""


def test_a_play_is_answered_without_torch(world: TinyWorld, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, world, world.model(1, own_items=True))
    name = "cpu" if device.has_driver() else "auto"  # with a driver, torch is asked what auto is
    ran = subprocess.run(
        [sys.executable, "-c", SERVE, str(bundle.path), str(START_MS), name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answered, imported = ran.stdout.splitlines()
    assert answered == f"2 True {bundle.version}"
    assert imported == "False", "torch was imported"
