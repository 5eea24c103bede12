"""INTENTREC_KV_DTYPE reaches the engine that serves, and the one that explains."""

from __future__ import annotations

from pathlib import Path

import pytest

from intentrec_core.engine.cpu.encoder import context_bytes
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.errors import ConfigError
from stream.bundles.hot_swap import fetch_serving
from stream.bundles.serving import Serving
from stream.repair import explain
from stream.settings import Settings
from stream.wire.sizes import DEFAULT_LIMITS
from tests.worlds.bundle_world import make_bundle
from tests.worlds.tiny_world import TinyWorld

POOL_BYTES = 1 << 20


def served(settings: Settings, version: str) -> Serving:
    return fetch_serving(settings, DEFAULT_LIMITS, version, settings.bundle_url)


def explaining(settings: Settings, version: str) -> Serving:
    return explain._load(settings, version, "")


@pytest.mark.parametrize("load", [served, explaining])
@pytest.mark.parametrize("kv_dtype", KvDtype)
def test_a_bundle_is_loaded_with_the_type_of_the_settings(
    world: TinyWorld, tmp_path: Path, kv_dtype: KvDtype, load: object
) -> None:
    ref = make_bundle(tmp_path / "store", world, world.model(1))
    settings = Settings.load(
        bundle_url=str(tmp_path / "store"),
        cache_dir=tmp_path / "cache",
        device="cpu",
        pool_bytes=POOL_BYTES,
        kv_dtype=str(kv_dtype),
    )
    engine = load(settings, ref.version).engine
    assert engine.num_contexts == POOL_BYTES // context_bytes(engine.weights, kv_dtype)


def test_float32_is_the_default_and_another_type_is_refused() -> None:
    assert Settings.load().kv_dtype == KvDtype.FLOAT32
    with pytest.raises(ConfigError, match="kv_dtype"):
        Settings.load(kv_dtype="float16")
