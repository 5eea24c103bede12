"""Checks of what is served: the domain, the catalogue, the bundles in the store, and the one that is announced."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from intentrec_core.bundle.store import BundleStore
from intentrec_core.domain.spec import Domain, FieldSource, Rule
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import IntentRecError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.release_times import check_release_times
from stream.bundles.announcements import AnnouncementFollower, newest
from stream.bundles.verification import check_bundle
from stream.doctor.check import Checks, counted, one_line

if TYPE_CHECKING:
    from stream.settings import Settings
    from stream.wire.messages import Announcement


def check_model(settings: Settings, checks: Checks, topics: Collection[str]) -> None:
    """Adds what is found of domain, catalogue and bundles. ``topics`` are those on the broker."""
    domain = _check_domain(settings, checks)
    if domain is not None:
        _check_catalogue(settings, checks, domain)
    has_bundles = _check_store(settings, checks)
    if settings.model_updates_topic in topics:
        _check_announced(settings, checks, domain, has_bundles)


def _check_domain(settings: Settings, checks: Checks) -> Domain | None:
    try:
        domain = load_domain(settings.domain)
    except IntentRecError as error:
        checks.refused("domain", error)
        return None
    heads = ", ".join(head.name for head in domain.heads)
    checks.ok(
        "domain",
        f"{domain.name}: intents {heads}; {counted(len(domain.fields), 'field')}, {counted(len(domain.filters), 'filter')}",
    )
    return domain


def _check_catalogue(settings: Settings, checks: Checks, domain: Domain) -> None:
    fields = {
        field.key
        for field in domain.fields
        if field.source is FieldSource.CATALOGUE or field.rule is Rule.TIME_SINCE_RELEASE
    }
    keys = sorted(fields | {filter_.key for filter_ in domain.filters if filter_.key})
    if settings.catalogue is None:
        if keys:
            remedy = "set INTENTREC_CATALOGUE to the items file"
            checks.warn(
                "catalogue",
                f"no file, and the domain reads {', '.join(keys)}: a trainer knows nothing of new items",
                remedy,
            )
        return
    try:
        catalogue = check_release_times(Catalogue.load(settings.catalogue), domain)
    except IntentRecError as error:
        checks.fail("catalogue", one_line(error), "correct the file that INTENTREC_CATALOGUE names")
        return
    for left_out in catalogue.left_out:
        checks.warn("catalogue", left_out.line(), "correct the file")
    num = max(1, len(catalogue))
    rare = [key for key in keys if sum(key in item.attributes for item in catalogue) < num / 2]
    if rare:
        remedy = "check the keys in the domain file, or the columns of the catalogue"
        checks.warn("catalogue", f"most of its {len(catalogue):,} items lack {', '.join(rare)}", remedy)
    else:
        checks.ok("catalogue", f"{settings.catalogue}: {len(catalogue):,} items")


def _check_store(settings: Settings, checks: Checks) -> bool:
    """Whether the store of INTENTREC_BUNDLE_URL, where a trainer writes, has bundles."""
    store = BundleStore(settings.bundle_url, settings.cache_dir)
    try:
        if "://" in settings.bundle_url:  # of a folder, the disk is looked at
            store.check_writable()
        manifests = store.list()
    except IntentRecError as error:
        checks.fail("bundles", one_line(error), "see that the store can be reached and written to")
        return False
    if not manifests:
        checks.warn("bundles", f"none in {settings.bundle_url}", "intentrec train --announce")
        return False
    newest_one = f"the newest {manifests[0].version} of {manifests[0].created_at[:16]}"
    checks.ok("bundles", f"{len(manifests)} in {settings.bundle_url}, {newest_one}")
    return True


def _check_announced(settings: Settings, checks: Checks, domain: Domain | None, has_bundles: bool) -> None:
    """Loads the announced bundle from where the announcement says, as workers do."""
    area = "announced bundle"
    try:
        announcement = asyncio.run(_announced(settings))
        if announcement is None:
            remedy = (
                "intentrec bundle rollback VERSION announces a bundle" if has_bundles else "intentrec train --announce"
            )
            checks.warn(area, "none: a worker waits for one", remedy)
            return
        version = announcement.bundle
        store = BundleStore(announcement.url or settings.bundle_url, settings.cache_dir)
        loaded, _ = check_bundle(store.fetch(version))
    except IntentRecError as error:
        remedy = "intentrec bundle rollback VERSION announces another one; intentrec bundle list shows them"
        checks.fail(area, one_line(error), remedy)
        return
    if domain is not None and loaded.domain.fingerprint != domain.fingerprint:
        other = f"whose histories mean something else than those of {settings.domain}"
        what = f"{version} is of the domain {loaded.domain.name}, {other}"
        checks.fail(area, f"{what}: workers refuse what a trainer makes with it", "give --domain as for train")
    elif domain is not None and loaded.domain != domain:
        what = f"{version} was trained with another version of {settings.domain}: a worker serves as it was trained"
        checks.warn(area, what, "train again for the file to count")
    else:
        checks.ok(area, f"{version}: {len(loaded.vocabulary) - 1:,} items, whole and verified")


async def _announced(settings: Settings) -> Announcement | None:
    async with AnnouncementFollower(settings) as follower:
        return newest(await follower.read())
