"""Replaces the serving bundle while plays are served: loads the announced bundle in the background, then migrates the members.

    announced ─ newer number? ─ fetch ─ verify, golden queries ─ load ─ migrate members ─▶ serve
                    │                       │                               │
                    └──────────── refused, with a reason; the current bundle goes on serving

The previous bundle stays in memory, so that a rollback to it loads nothing. If a store cannot be reached, the fetch is retried
until a newer announcement comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from index.artifact import kind_of
from intentrec_core.bundle.store import BundleStore
from intentrec_core.errors import BundleError, BundleFault, ConfigError, DeviceLost
from stream.bundles.announcements import AnnouncementFollower, newest
from stream.bundles.message_sizes import check_message_sizes
from stream.bundles.serving import Serving, load_serving
from stream.wire.sizes import DEFAULT_LIMITS, TopicLimits

if TYPE_CHECKING:
    from intentrec_core.bundle.contents import Tables
    from stream.ops.metrics import Metrics
    from stream.settings import Settings
    from stream.wire.messages import Announcement

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: After this time the remaining members are not encoded in advance, but at their next play, as after any cache miss.
MIGRATION_DEADLINE_S = 600.0
#: A chunk that waits for plays has paused by waiting already; a longer pause would only prolong a migration in an overload.
_LONGEST_PAUSE_S = 0.05
_RETRY_S = (1.0, 2.0, 5.0, 15.0, 60.0)
#: Other workers of this machine share the cache, and may not have made the latest swap yet.
_NUM_KEPT_ON_DISK = 4
_NUM_OLDER_TRIED = 5
_NO_BUNDLE_RETRY_S = 2.0


class SwappingPipeline(Protocol):
    """The part of stream.pipeline.pipeline.Pipeline that a hot swap calls, on the inference thread; ``look_up`` on any."""

    @property
    def serving(self) -> Serving: ...
    @property
    def previous(self) -> Serving | None: ...
    def look_up(self, serving: Serving) -> None: ...
    def start_migration(self, serving: Serving) -> None: ...
    def step_migration(self) -> bool: ...
    def abort_migration(self) -> None: ...
    def swap(self, serving: Serving) -> int: ...


LoadServing = Callable[[str, str, "Tables | None"], Serving]
"""Loads a bundle from its version, its store's URL and the tables that are in memory already: see ``fetch_serving``."""
OnInferenceThread = Callable[..., Awaitable[Any]]
"""Runs a function between two micro-batches: ``await on_inference_thread(function, *arguments)``."""


class HotSwap:
    """Follows announcements and swaps to the announced bundle. An async context manager, owned by the event loop.

    ``limits`` are those of the topics: a bundle whose messages would not fit is refused. ``follower`` and ``load`` are where
    announcements and bundles come from: by default the topic and the store of ``settings``.

    ``first()`` returns the bundle that the pipeline is made with; ``run()`` then swaps bundles until it is cancelled.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        limits: TopicLimits = DEFAULT_LIMITS,
        *,
        follower: AnnouncementFollower | None = None,
        load: LoadServing | None = None,
    ) -> None:
        self._settings, self._metrics = settings, metrics
        self._follower = follower or AnnouncementFollower(settings)
        self._load_serving = load or partial(fetch_serving, settings, limits)
        self._standby = ThreadPoolExecutor(max_workers=1, thread_name_prefix="standby")
        self._seen = 0
        self._wanted: tuple[Announcement, float] | None = None
        self._announced = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connects.

        Raises: BrokerError when the announcements cannot be read.
        """
        await self._follower.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects, and drops a bundle that is being loaded."""
        self._standby.shutdown(wait=False, cancel_futures=True)
        await self._follower.__aexit__(kind, error, trace)

    async def first(self) -> Serving:
        """The first bundle to serve: the announced one, else its parent, else the newest one in the store that can serve.

        Waits until there is one.

        Raises: BrokerError when the announcements cannot be read; ConfigError when device, pool or URL cannot be used.
        """
        known: Announcement | None = None
        refused: set[str] = set()
        while True:
            known = newest([*([known] if known else []), *await self._follower.read()])
            if known is not None:
                self._note_sequence(known)
            candidates = await asyncio.to_thread(self._candidates, known, refused)
            unreachable: set[str] = set()
            for version, url in candidates:
                logger.info("fetching, verifying and loading bundle %s from %s", version, url)
                started_s = time.monotonic()
                try:
                    serving = await self._load(version, url)
                except BundleError as error:
                    self._refuse(error)
                    (unreachable if error.fault is BundleFault.UNREACHABLE else refused).add(version)
                    continue
                if (
                    known is not None and known.bundle in unreachable
                ):  # another bundle serves until the store can be reached
                    self._wanted = (known, time.monotonic())
                took_s = time.monotonic() - started_s
                logger.info(
                    "bundle %s is loaded, after %.1f s; its index is %s", version, took_s, kind_of(serving.index)
                )
                return serving
            logger.info("no bundle can serve yet: waiting for one to be trained and announced (intentrec train)")
            await asyncio.sleep(_NO_BUNDLE_RETRY_S)

    async def run(self, pipeline: SwappingPipeline, on_inference_thread: OnInferenceThread) -> None:
        """Swaps to each announced bundle, until cancelled.

        Raises: DeviceLost when loading or migrating to a bundle detects that the device is lost.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._keep_up(pipeline, on_inference_thread))
        except ExceptionGroup as failures:
            lost = failures.subgroup(DeviceLost)
            if lost is None:
                raise
            raise lost.exceptions[0] from failures  # not in a group, so that the process ends with its exit code

    async def _follow(self) -> None:
        async for announcement in self._follower.follow():
            if announcement.sequence <= self._seen:
                detail = f"announced with number {announcement.sequence}, but number {self._seen} was announced before"
                self._refuse(BundleError(BundleFault.STALE_SEQUENCE, announcement.bundle, detail))
                continue
            self._seen = announcement.sequence
            self._wanted = (announcement, time.monotonic())
            self._announced.set()

    async def _keep_up(self, pipeline: SwappingPipeline, on_inference_thread: OnInferenceThread) -> None:
        delays_s: Iterator[float] = iter(_RETRY_S)
        while True:
            if self._wanted is None:
                await self._announced.wait()
            self._announced.clear()
            assert self._wanted is not None
            wanted, announced_s = self._wanted
            try:
                is_served = await self._swap_to(wanted, pipeline, on_inference_thread)
            except BundleError as error:
                self._refuse(error)
                if error.fault is BundleFault.UNREACHABLE and not self._announced.is_set():
                    with contextlib.suppress(TimeoutError):  # time to try again
                        async with asyncio.timeout(next(delays_s, _RETRY_S[-1])):
                            await self._announced.wait()
                    continue
            else:
                if is_served:
                    self._metrics.bundle_swap_seconds.observe(time.monotonic() - announced_s)
                self._note_sequence(wanted)
            delays_s = iter(_RETRY_S)
            if self._wanted[0] is wanted:
                self._wanted = None

    async def _swap_to(
        self, announcement: Announcement, pipeline: SwappingPipeline, on_inference_thread: OnInferenceThread
    ) -> bool:
        """Swaps to an announced bundle. Returns False if a rollback to the current bundle was announced meanwhile.

        Raises: BundleError when the announced bundle must not serve.
        """
        version, old = announcement.bundle, pipeline.serving
        if version == old.version:
            return True
        if pipeline.previous is not None and pipeline.previous.version == version:
            serving = pipeline.previous
        else:
            try:
                serving = await self._load(version, announcement.url, old.tables)
            except ConfigError as error:  # the store's URL is wrong, or the pool too small: not the end of the process
                raise BundleError(BundleFault.UNREACHABLE, version, str(error)) from error
        with _refusing(version, "prepare"):
            await self._in_standby(pipeline.look_up, serving)
            await on_inference_thread(pipeline.start_migration, serving)
        num_migrated = await self._migrate(serving, pipeline, on_inference_thread)
        if num_migrated is None:
            logger.info(
                "%s keeps serving: it was announced again before the swap to %s was complete", old.version, version
            )
            return False
        self._metrics.bundle_swaps.inc()
        logger.info(
            "%s serves instead of %s (%s; index %s; %d members migrated with a warm cache)",
            version,
            old.version,
            announcement.reason,
            kind_of(serving.index),
            num_migrated,
        )
        await self._in_standby(self._tidy, version, old.version)
        return True

    async def _migrate(
        self, serving: Serving, pipeline: SwappingPipeline, on_inference_thread: OnInferenceThread
    ) -> int | None:
        """Migrates the cached members one after another, then swaps for all others, once a migration was started. Returns how
        many migrated before the swap.

        After each chunk, the inference thread is left to the plays for as long as the chunk took, including its wait for plays:
        the busier the worker, the slower the migration. If the current bundle is announced again, the migration is aborted at
        once, every member stays with it, and None is returned.

        Raises: BundleError when most members cannot be encoded.
        """
        deadline_s = time.monotonic() + MIGRATION_DEADLINE_S
        old, is_more = pipeline.serving.version, True
        while is_more and time.monotonic() < deadline_s:
            if self._wanted is not None and self._wanted[0].bundle == old:
                await on_inference_thread(pipeline.abort_migration)
                return None
            started_s = time.monotonic()
            is_more = await on_inference_thread(pipeline.step_migration)
            await asyncio.sleep(min(time.monotonic() - started_s, _LONGEST_PAUSE_S))
        return await on_inference_thread(pipeline.swap, serving)

    async def _load(self, version: str, url: str, known: Tables | None = None) -> Serving:
        with _refusing(version, "load"):
            return await self._in_standby(self._load_serving, version, url, known)

    def _candidates(self, announced: Announcement | None, refused: Collection[str]) -> list[tuple[str, str]]:
        """Versions that were not refused, with their URLs, in the order in which to try them; at most a few at a time."""
        found = {} if announced is None else {announced.bundle: announced.url}
        if announced is not None and announced.parent is not None:
            found.setdefault(announced.parent, announced.url)
        url = self._settings.bundle_url
        try:
            known = [manifest.version for manifest in BundleStore(url, self._settings.cache_dir).list()]
            for version in [version for version in known if version not in refused][:_NUM_OLDER_TRIED]:
                found.setdefault(version, url)
        except BundleError as error:
            self._refuse(error)
        return [(version, url) for version, url in found.items() if version not in refused]

    def _tidy(self, *serving: str) -> None:
        store = BundleStore(self._settings.bundle_url, self._settings.cache_dir)
        newest_kept = [manifest.version for manifest in store.cached()[:_NUM_KEPT_ON_DISK]]
        store.drop_cached({*serving, *newest_kept})

    def _note_sequence(self, announcement: Announcement) -> None:
        self._seen = max(self._seen, announcement.sequence)
        self._metrics.bundle_sequence.set(announcement.sequence)

    def _refuse(self, error: BundleError) -> None:
        logger.error("refused: %s", error)
        self._metrics.bundle_rejections.labels(error.fault).inc()

    async def _in_standby(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._standby, function, *arguments)


def fetch_serving(
    settings: Settings, limits: TopicLimits, version: str, url: str, known: Tables | None = None
) -> Serving:
    """Fetches, verifies and loads a bundle; shares ``known`` tables if its files are the same.

    Raises: BundleError for every fault of the bundle or its store, because another bundle can still serve; ConfigError when
    device, pool or the configured URL cannot be used.
    """
    try:
        store = BundleStore(url, settings.cache_dir)
    except ConfigError as error:
        if url == settings.bundle_url:
            raise
        # The URL came with the announcement.
        raise BundleError(BundleFault.UNREACHABLE, version, str(error)) from error
    try:
        ref = store.fetch(version)
        serving = load_serving(
            ref, device=settings.device, pool_bytes=settings.pool_bytes, kv_dtype=settings.kv_dtype, known=known
        )
    except OSError as error:  # the cache's disk is full or read-only: retried, like an unreachable store
        raise BundleError(BundleFault.UNREACHABLE, version, f"{settings.cache_dir}: {error}") from error
    check_message_sizes(
        version,
        serving.domain,
        serving.vocabulary,
        serving.items,
        num_recommendations=settings.num_recommendations,
        limits=limits,
        embedding_width=serving.embedding_width if settings.publish_embedding else 0,
        query_width=serving.query_width if settings.publish_embedding else 0,
    )
    return serving


@contextlib.contextmanager
def _refusing(version: str, step: str) -> Iterator[None]:
    """Refuses a bundle that this version of the code cannot ``step``, whatever the error is."""
    try:
        yield
    except (BundleError, ConfigError, DeviceLost):
        raise
    except Exception as error:  # whatever another version wrote: the bundle is refused, and the one in service stays
        logger.exception("bundle %s: this version of the code cannot %s it", version, step)
        detail = f"this version of the code cannot {step} it: {error!r}"
        raise BundleError(BundleFault.CODE_VERSION, version, detail) from error
