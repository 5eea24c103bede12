"""Loads a bundle together with its index, and runs its golden queries: the check before a bundle is announced or served."""

from __future__ import annotations

from pathlib import Path

from index import artifact
from index.base import ItemIndex
from index.conditioning import augment
from index.golden import check_golden
from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.contents import LoadedBundle, Tables, load_bundle
from stream.bundles.message_sizes import check_message_sizes
from stream.settings import MAX_RECOMMENDATIONS
from stream.wire.sizes import DEFAULT_LIMITS


def load_verified(source: Path | bundle.BundleRef, *, known: Tables | None = None) -> tuple[LoadedBundle, ItemIndex]:
    """The bundle in memory and its index, with files, shapes, numbers and golden queries checked.

    ``source``: a folder, or the ref that :meth:`~intentrec_core.bundle.store.BundleStore.fetch` returned; with a ref, files that
    have not changed since are not hashed again. ``known``: tables of another bundle, shared if the files are the same.

    Raises: BundleError with what is wrong.
    Cost: reads the whole bundle, and hashes each file at most once.
    """
    indexes: list[ItemIndex] = []

    def check_index(loaded: LoadedBundle) -> None:
        vectors = augment(loaded.vectors.weights, loaded.vectors.bias, list(loaded.vectors.labels.values()))
        index = artifact.load(loaded.path / bundle.INDEX, vectors, loaded.version)
        check_golden(index, (loaded.path / bundle.GOLDEN).read_bytes(), loaded.version)
        indexes.append(index)

    return load_bundle(source, golden=check_index, known=known), indexes[0]


def check_bundle(source: Path | bundle.BundleRef) -> tuple[LoadedBundle, ItemIndex]:
    """Loads a bundle as a worker does, and checks files, shapes, numbers and golden queries.

    ``source``: a folder, or a ref from a store, whose files were hashed when it was fetched and are not hashed again.

    Messages are checked for the longest list that can be configured, on topics with the default limits.

    Raises: BundleError with what is wrong.
    """
    loaded, index = load_verified(source)
    check_message_sizes(
        loaded.version,
        loaded.domain,
        loaded.vocabulary,
        loaded.item_table,
        num_recommendations=MAX_RECOMMENDATIONS,
        limits=DEFAULT_LIMITS,
    )
    return loaded, index
