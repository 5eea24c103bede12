"""Follows announcements, and keeps a view of the bundle announced last and of the one before it.

A bundle that cannot be fetched or read is logged and tried again; the views before it go on answering. The gateway does not
decide which bundle serves: a message names its own, and is answered from that one or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from intentrec_core.bundle.contents import load_bundle
from intentrec_core.bundle.store import BundleStore
from intentrec_core.errors import BundleError, ConfigError
from intentrec_core.features.catalogue import Item
from stream.bundles.announcements import AnnouncementFollower, newest
from stream.gateway.bundle_view import BundleView
from stream.kafka.item_counts_reader import ItemCountsReader
from stream.kafka.items_reader import ItemsReader
from stream.ops.process_end import first_to_end
from stream.wire.catalogue_record import ItemChanges
from stream.wire.item_counts_record import read_table

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from stream.settings import Settings
    from stream.wire.messages import Announcement

logger = logging.getLogger(__name__)

#: The serving bundle and the one before it, whose messages are still the newest of members who have not played since.
_NUM_VIEWS = 2
_NUM_ANNOUNCEMENTS = 50
_RETRY_S = 5.0
#: Between two times that a view is made anew for changes of the catalogue: it costs a pass over all items.
_CATALOGUE_INTERVAL_S = 1.0


class BundleFollower:
    """An async context manager, owned by the event loop. :meth:`run` follows until it is cancelled.

    ``announcements``: the newest ones, oldest first.
    """

    def __init__(self, settings: Settings, load: Callable[[str, str], BundleView] | None = None) -> None:
        self._settings = settings
        self._load = load or self._fetch
        self._follower = AnnouncementFollower(settings)
        self._counts_reader = ItemCountsReader(settings)
        self._items_reader = ItemsReader(settings) if settings.catalogue_source == "topic" else None
        self._loaded: OrderedDict[str, BundleView] = OrderedDict()
        self._views: dict[str, BundleView] = {}
        self._items: dict[int, Item] = {}
        self._counts: ItemCounts | None = None
        self._wanted = asyncio.Event()
        self._items_changed = asyncio.Event()
        self._renewing = asyncio.Lock()
        self.announcements: list[Announcement] = []

    async def __aenter__(self) -> Self:
        """Connects, and reads what is announced, what is popular and what is in the catalogue now.

        Raises: BrokerError when a topic cannot be read.
        """
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._follower)
            self._note(*await self._follower.read())
            await stack.enter_async_context(self._counts_reader)
            packed = await self._counts_reader.to_the_end()
            self._counts = None if packed is None else await asyncio.to_thread(read_table, packed)
            if self._items_reader is not None:
                await stack.enter_async_context(self._items_reader)
                self._take_items(await self._items_reader.changes())
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects."""
        await self._open.aclose()

    @property
    def announced(self) -> Announcement | None:
        """The announcement that counts."""
        return newest(self.announcements)

    @property
    def current(self) -> BundleView | None:
        """The view of the bundle that was loaded last; None before the first."""
        return next(reversed(self._views.values()), None) if self._views else None

    def view(self, version: str) -> BundleView | None:
        """The view of a bundle that is in memory."""
        return self._views.get(version)

    async def run(self) -> None:
        """Follows announcements, counts and the catalogue until it is cancelled."""
        following = [self._follow_announcements(), self._keep_up(), self._follow_counts()]
        if self._items_reader is not None:
            following += [self._follow_items(self._items_reader), self._keep_items_up()]
        await first_to_end(*following)

    async def _follow_announcements(self) -> None:
        async for announcement in self._follower.follow():
            self._note(announcement)

    def _note(self, *announcements: Announcement) -> None:
        known = self.announced
        for announcement in announcements:
            if known is None or announcement.sequence > known.sequence:
                known = announcement
                self.announcements = [*self.announcements, announcement][-_NUM_ANNOUNCEMENTS:]
        self._wanted.set()

    async def _keep_up(self) -> None:
        while True:
            self._wanted.clear()
            announced = self.announced
            if announced is not None and not await self._take(announced):
                with contextlib.suppress(TimeoutError):  # time to try again
                    async with asyncio.timeout(_RETRY_S):
                        await self._wanted.wait()
                continue
            await self._wanted.wait()

    async def _take(self, announced: Announcement) -> bool:
        """Loads an announced bundle; False if it cannot be loaded now."""
        version, started_s = announced.bundle, time.monotonic()
        if version in self._loaded:
            self._loaded.move_to_end(version)
        else:
            try:
                self._loaded[version] = await asyncio.to_thread(self._load, version, announced.url)
            except (BundleError, ConfigError, OSError) as error:
                logger.warning("not loaded: %s; trying again", error)
                return False
            while len(self._loaded) > _NUM_VIEWS:
                self._loaded.popitem(last=False)
            logger.info("bundle %s is loaded, after %.1f s", version, time.monotonic() - started_s)
        await self._renew()
        return True

    def _fetch(self, version: str, url: str) -> BundleView:
        return BundleView.of(load_bundle(BundleStore(url, self._settings.cache_dir).fetch(version)))

    async def _renew(self) -> None:
        """Makes the views anew, of the bundles, the catalogue and the counts as they are."""
        async with self._renewing:
            self._views = await asyncio.to_thread(
                self._made, list(self._loaded.items()), list(self._items.values()), self._counts
            )

    def _made(
        self, loaded: list[tuple[str, BundleView]], items: list[Item], counts: ItemCounts | None
    ) -> dict[str, BundleView]:
        views = {}
        for version, view in loaded:
            shown = view if self._items_reader is None else view.with_catalogue(items)
            views[version] = shown if counts is None else shown.with_counts(counts)
            views[version].popular(1)  # a pass over all items, here on a thread, and by no request
        return views

    async def _follow_counts(self) -> None:
        async for packed in self._counts_reader.follow():
            table = await asyncio.to_thread(read_table, packed)
            if table is not None:
                async with self._renewing:
                    self._counts = table
                    self._views = await asyncio.to_thread(_with_counts, self._views, table)

    async def _follow_items(self, reader: ItemsReader) -> None:
        async for changes in reader.follow(lambda num_waiting, as_of_s: None):
            self._take_items(changes)
            self._items_changed.set()

    def _take_items(self, changes: ItemChanges) -> None:
        if changes.is_whole:
            self._items.clear()
        for item_hash, item in changes.items.items():
            if item is None:
                self._items.pop(item_hash, None)
            else:
                self._items[item_hash] = item

    async def _keep_items_up(self) -> None:
        while True:
            await self._items_changed.wait()
            self._items_changed.clear()
            await self._renew()
            await asyncio.sleep(_CATALOGUE_INTERVAL_S)


def _with_counts(views: dict[str, BundleView], counts: ItemCounts) -> dict[str, BundleView]:
    counted = {version: view.with_counts(counts) for version, view in views.items()}
    for view in counted.values():
        view.popular(1)
    return counted
