"""What commands do with the bundle store: build a bundle into it, announce one, find one, load one."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from intentrec_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from intentrec_core.bundle.contents import LoadedBundle
    from intentrec_core.bundle.format import Manifest
    from intentrec_core.bundle.model_folder import Model
    from intentrec_core.bundle.store import BundleStore
    from intentrec_core.domain.spec import Domain
    from intentrec_core.plays.profile import DataProfile
    from stream.bundles.builder import BuiltBundle
    from stream.settings import Settings

LATEST = "latest"
#: The beginning of a version, and not all of it.
_PREFIX = re.compile(r"b[0-9a-f]{0,11}")


def open_store(settings: Settings) -> BundleStore:
    """The store that the settings name.

    Raises: ConfigError when its URL is invalid.
    """
    from intentrec_core.bundle.store import BundleStore

    return BundleStore(settings.bundle_url, settings.cache_dir)


def newest_bundle(settings: Settings) -> str | None:
    """Version of the newest bundle in the store; None where there is none."""
    manifests = open_store(settings).list()
    return manifests[0].version if manifests else None


def resolve(store: BundleStore, version: str) -> str:
    """The version itself; for ``latest`` the newest one, for the first characters of a version the one that starts with them.

    Raises: ConfigError when the store is empty, or not exactly one version starts with these characters.
    """
    if version != LATEST and not _PREFIX.fullmatch(version):
        return version  # a whole version, or none at all, which the store refuses
    versions = [manifest.version for manifest in store.list()]
    if not versions:
        raise ConfigError(f"no bundle at {store.url}: write one with `intentrec train`")
    if version == LATEST:
        return versions[0]
    found = [known for known in versions if known.startswith(version)]
    if len(found) != 1:
        those = f"{len(found)} versions start with it: {', '.join(found[:5])}" if found else "no version starts with it"
        raise ConfigError(
            f"bundle {version!r} at {store.url}: {those}. Allowed: {LATEST}, a version as `intentrec bundle list` shows it, or "
            "enough of its first characters"
        )
    return found[0]


def publish_bundle(
    settings: Settings, model: Model, plays: pa.Table, metrics: Mapping[str, float] | None = None
) -> BuiltBundle:
    """Builds a bundle of a model, dated by the newest play, verifies it and puts it into the store.

    Its data are compared with those of the newest bundle that the store has of the same domain.

    Raises: BundleError when it does not verify or the store refuses; DataError when the data make an intent or a filter of
    the domain meaningless.
    """
    from stream.bundles.builder import build_bundle, remove_leftovers

    store = open_store(settings)
    built = build_bundle(
        store.cache,
        model,
        plays,
        previous=_newest_profile(store, model.domain.name),
        index_kind=settings.index,
        metrics=metrics,
    )
    remove_leftovers(store)
    store.publish(built.ref)
    return built


def data_profile(store: BundleStore, manifest: Manifest) -> tuple[Domain, DataProfile] | None:
    """A bundle's domain and the profile of its data; None for a bundle of an earlier release.

    Raises: BundleError when the bundle cannot be fetched, or is damaged.
    """
    from intentrec_core.bundle.format import DOMAIN, PROFILE
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.plays.profile import DataProfile

    if PROFILE not in manifest.files:
        return None
    path = store.fetch(manifest.version).path
    profile = DataProfile.from_bytes((path / PROFILE).read_bytes())
    return (load_domain(path / DOMAIN), profile) if profile is not None else None


def _newest_profile(store: BundleStore, domain: str) -> DataProfile | None:
    """The data profile of the newest bundle of this domain, if there is one, and it is whole.

    A bundle of an earlier release does not name its domain in its manifest, and counts as one of any.
    """
    from intentrec_core.errors import BundleError, ConfigError
    from stream.bundles.builder import DOMAIN_NAME

    try:
        ours = (manifest for manifest in store.list() if manifest.facts.get(DOMAIN_NAME, domain) == domain)
        newest = next(ours, None)
        found = data_profile(store, newest) if newest is not None else None
    except (BundleError, ConfigError):
        return None
    return found[1] if found is not None and found[0].name == domain else None


def announce_bundle(settings: Settings, version: str, *, reason: str, parent: str | None = None) -> int:
    """Tells every worker to serve a bundle; returns the announcement's number.

    Raises: BrokerError when the broker cannot be reached.
    """
    from stream.bundles.announcements import announce

    announcement = asyncio.run(
        announce(settings, bundle=version, url=settings.bundle_url, parent=parent, reason=reason)
    )
    return announcement.sequence


def newest_announced(settings: Settings) -> str | None:
    """Version of the newest announced bundle; None before the first one.

    Raises: BrokerError when the broker cannot be reached.
    """
    from stream.bundles.announcements import AnnouncementFollower, newest

    async def read() -> str | None:
        async with AnnouncementFollower(settings) as follower:
            announcement = newest(await follower.read())
        return announcement.bundle if announcement else None

    return asyncio.run(read())


def trained_bundle(settings: Settings, version: str) -> tuple[LoadedBundle, int]:
    """A bundle, checked whole, and the event time up to which plays have made it, excluded (milliseconds since 1970): it has
    learned them, or the weight of its successors was chosen on them.

    Raises: BundleError when it does not verify; ConfigError when the store has none of this version.
    """
    from stream.bundles.builder import TRAINED_UNTIL
    from stream.bundles.serving import PLAYS_UNTIL
    from stream.bundles.verification import check_bundle

    store = open_store(settings)
    loaded, _ = check_bundle(store.fetch(resolve(store, version)))
    trained_until: Any = loaded.manifest.facts[TRAINED_UNTIL]
    plays_until: Any = loaded.manifest.facts[PLAYS_UNTIL] if loaded.successors else 0
    return loaded, max(int(trained_until), int(plays_until) + 1)
