"""A worker encodes with as many threads as FAISS has, and a LiveEncoder with torch's."""

from __future__ import annotations

from pathlib import Path

import faiss
import pytest
import torch

from index.threads import num_threads
from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.engine.live import LiveEncoder
from stream.bundles import serving
from tests.worlds.bundle_world import make_serving
from tests.worlds.live_world import tiny_model
from tests.worlds.tiny_world import TinyWorld


def threads_of(engine: IncrementalEngine) -> int:
    assert isinstance(engine.encoder, CpuEncoder)
    return engine.encoder._num_threads


def test_a_bundle_is_served_with_as_many_threads_as_faiss_has(
    world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert num_threads() == faiss.omp_get_max_threads()
    monkeypatch.setattr(serving, "num_threads", lambda: 3)
    assert threads_of(make_serving(tmp_path, world, world.model()).engine) == 3


def test_a_live_encoder_has_as_many_threads_as_torch(world: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert threads_of(LiveEncoder(tiny_model(world))._engine) == 2
