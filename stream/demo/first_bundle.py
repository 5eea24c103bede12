"""The demo's first bundle: trained once per machine, then taken from a cache whose key covers everything it depends on.

The key is a hash of the plays, the domain, the settings of training and index, and the code of core and index, so a stale bundle
is never served.
A cached bundle is verified like any other before use; if it does not verify, it is trained again.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import index
import intentrec_core
from intentrec_core.bundle.format import BundleRef
from intentrec_core.bundle.store import BundleStore
from intentrec_core.domain.toml import domain_text, load_domain
from intentrec_core.errors import BundleError
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.first_model import fit
from stream.bundles.builder import build_bundle
from stream.bundles.verification import check_bundle

if TYPE_CHECKING:
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.training.reports import ProgressCallback
    from stream.settings import Settings

_FOLDER = "demo"


def first_bundle(
    settings: Settings,
    plays: pa.Table,
    catalogue: Catalogue,
    *,
    seed: int,
    max_seconds: float,
    cache_dir: Path,
    fresh: bool,
    progress: ProgressCallback,
) -> tuple[str, bool]:
    """Puts a bundle trained on ``plays`` into the store; returns its version, and whether it was trained now.

    It is trained as the domain declares for a first model, in ``max_seconds`` at most.

    Raises: BundleError if the trained bundle does not verify.
    """
    store = BundleStore(settings.bundle_url, settings.cache_dir)
    config = TrainConfig.for_domain(load_domain(settings.domain), seed=seed, max_seconds=max_seconds)
    folder = cache_dir / _FOLDER / _key(settings, plays, config)
    cached = None if fresh else _cached_bundle(folder)
    if cached is None:
        shutil.rmtree(folder, ignore_errors=True)
        model = fit(plays, catalogue, domain=settings.domain, config=config, device=settings.device, progress=progress)
        built = build_bundle(folder, model, plays, index_kind=settings.index)
        store.publish(built.ref)
        return built.ref.version, True
    store.publish(cached)
    return cached.version, False


def _cached_bundle(folder: Path) -> BundleRef | None:
    for path in sorted(folder.glob("b*")):
        try:
            check_bundle(path)
        except BundleError:
            continue
        return BundleRef(path.name, path)
    return None


def _key(settings: Settings, plays: pa.Table, config: TrainConfig) -> str:
    digest = hashlib.sha256()
    for part in (domain_text(settings.domain), repr(config), settings.index, str(plays.num_rows)):
        digest.update(part.encode() + b"\0")
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, plays.schema) as writer:
        writer.write_table(plays)
    digest.update(stream.getvalue())
    for package in (intentrec_core, index):
        for source in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
