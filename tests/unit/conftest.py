"""Fixtures of tests that put one bundle in another one's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.bundles.serving import Serving
from stream.pipeline import migration
from tests.worlds.bundle_world import make_serving
from tests.worlds.tiny_world import TinyWorld


@pytest.fixture
def servings(world: TinyWorld, tmp_path: Path) -> tuple[Serving, Serving]:
    """Two bundles with other weights, loaded."""
    return make_serving(tmp_path, world, world.model(1)), make_serving(tmp_path, world, world.model(2))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration encodes four plays at a time."""
    monkeypatch.setattr(migration, "CHUNK_ON_CPU", 4)
