"""The demo's first bundle, trained once per machine: kept by what it depends on, so that nothing stale is ever served.

The key is a hash of the plays, the domain, the training settings and the code of the core. A bundle found under it is verified
like any other before it is used; one that does not verify is trained anew.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import intentrec_core
from intentrec_core.bundle.format import BundleRef
from intentrec_core.bundle.store import BundleStore
from intentrec_core.domain.toml import domain_text
from intentrec_core.errors import BundleError
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.first_model import fit
from stream.bundles.builder import build_bundle, check_bundle

if TYPE_CHECKING:
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.training.reports import ProgressCallback
    from stream.settings import Settings

_FOLDER = "demo"


def first_bundle(
    settings: Settings,
    plays: pa.Table,
    catalogue: Catalogue,
    config: TrainConfig,
    *,
    kept_in: Path,
    fresh: bool,
    progress: ProgressCallback,
) -> tuple[str, bool]:
    """Puts a bundle trained on ``plays`` into the store; returns its version, and whether it was trained just now.

    Raises: BundleError when what was trained does not verify.
    """
    store = BundleStore(settings.bundle_url, settings.cache_dir)
    folder = kept_in / _FOLDER / _key(settings.domain, plays, config)
    kept = None if fresh else _sound_bundle(folder)
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
        model = fit(plays, catalogue, domain=settings.domain, config=config, device=settings.device, progress=progress)
        built = build_bundle(folder, model, plays)
        store.publish(built.ref)
        return built.ref.version, True
    store.publish(kept)
    return kept.version, False


def _sound_bundle(folder: Path) -> BundleRef | None:
    for path in sorted(folder.glob("b*")):
        try:
            check_bundle(path)
        except BundleError:
            continue
        return BundleRef(path.name, path)
    return None


def _key(domain: str, plays: pa.Table, config: TrainConfig) -> str:
    digest = hashlib.sha256()
    for part in (domain_text(domain), repr(config), str(plays.num_rows)):
        digest.update(part.encode() + b"\0")
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, plays.schema) as writer:
        writer.write_table(plays)
    digest.update(stream.getvalue())
    root = Path(intentrec_core.__file__).parent
    for source in sorted(root.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
