"""Owns the bundles of a pipeline: the current one, the coming one while members migrate to it, and the previous one.

    current ─ start ─▶ current + coming ─ step, step, … finish ─▶ the coming one is current, the current one previous
                             └─ abort ─▶ current

At any moment one bundle serves a member, and a member moves between two micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from intentrec_core.errors import BundleError, BundleFault
from stream.pipeline.bundle_counts import BundleCounts
from stream.pipeline.bundle_runner import BundleRunner
from stream.pipeline.migration import MemberMigration
from stream.pipeline.shown_items import ShownItems
from stream.pipeline.stale_members import StaleMembers

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from intentrec_core.engine.member_key import MemberKey
    from intentrec_core.history.history import EventLayout, History
    from stream.bundles.serving import Serving
    from stream.ops.metrics import Metrics
    from stream.pipeline.config import PipelineConfig
    from stream.pipeline.folding import FoldedBatch
    from stream.pipeline.live_catalogue import LiveCatalogue
    from stream.pipeline.prefill import SlotCache
    from stream.pipeline.responder import Responder
    from stream.wire.catalogue_record import ItemChanges


class BundleSwitch:
    """Owned by the inference thread.

    ``history_of`` a member is None where there is none. ``catalogue`` is None where bundles show their own items. ``table``: the
    counts of plays; None before the first. ``previous`` is kept in memory, so that a rollback loads nothing.
    """

    def __init__(
        self,
        serving: Serving,
        config: PipelineConfig,
        layout: EventLayout,
        metrics: Metrics,
        history_of: Callable[[MemberKey], History | None],
        catalogue: LiveCatalogue | None = None,
        table: ItemCounts | None = None,
    ) -> None:
        self._catalogue, self._table = catalogue, table
        self._looked_up: ShownItems | None = None
        self._looked_up_counts: BundleCounts | None = None
        self._config, self._layout, self._metrics, self._history_of = config, layout, metrics, history_of
        self._stale = StaleMembers(max(serving.engine.num_units, 1024))
        self._migration: MemberMigration | None = None
        self.previous: Serving | None = None
        items, counts = self._items_of(serving), self._counts_of(serving)
        self._serve(BundleRunner(serving, config, layout, metrics, items, counts=counts))

    @property
    def serving(self) -> Serving:
        """The bundle that serves; during a migration, the one whose members move."""
        return self._current.serving

    @property
    def responders(self) -> tuple[Responder, ...]:
        """The responders of all bundles that serve a member now."""
        return tuple(runner.responder for runner in self._runners)

    @property
    def _runners(self) -> tuple[BundleRunner, ...]:
        """The runners of all bundles that serve a member now. May be asked from another thread."""
        migration = self._migration
        return (self._current,) if migration is None else (self._current, migration.coming)

    @property
    def cache(self) -> SlotCache:
        """Which members are cached by the engine that serves them."""
        return self._current.engine if self._migration is None else self._migration

    def split(self, batch: FoldedBatch) -> list[tuple[BundleRunner, FoldedBatch]]:
        """The slices of a micro-batch with something to encode, and the bundle that serves each."""
        if self._migration is None:
            slices = [(self._current, batch)]
        else:
            rest, migrated = self._migration.split(batch)
            slices = [(self._current, rest)]
            if migrated is not None:
                slices.append((self._migration.coming, migrated))
        return [(runner, own) for runner, own in slices if own.waves]

    def forget(self, member: MemberKey) -> None:
        """Drops what every engine has cached of a member."""
        self._current.forget(member)
        if self._migration is not None:
            self._migration.coming.forget(member)
        self._stale.add([member])

    def mark_stale(self, members: Iterable[MemberKey]) -> None:
        """Notes members with an out-of-order play: engines that do not serve them must not use their cache."""
        self._stale.add(members)

    def prepare(self, serving: Serving) -> BundleRunner:
        """Makes the runner of a coming bundle; nothing has changed yet.

        Raises: BundleError when its domain would give the histories another meaning.
        """
        # First: nothing of a bundle that is refused may stay in memory.
        looked_up, self._looked_up = self._looked_up, None
        counts, self._looked_up_counts = self._looked_up_counts, None
        if serving.domain.fingerprint != self.serving.domain.fingerprint:
            detail = "declares other ground state than the histories hold"
            raise BundleError(BundleFault.DOMAIN, serving.version, detail)
        items = self._items_of(serving, looked_up)
        if counts is None or counts.serving is not serving:
            counts = self._counts_of(serving)
        return BundleRunner(serving, self._config, self._layout, self._metrics, items, self._current, counts)

    def look_up(self, serving: Serving) -> None:
        """Looks up the items of a bundle that is about to come, so that :meth:`prepare` has only the newest changes to apply.

        May run on another thread, one call at a time.
        """
        if self._catalogue is not None:
            self._looked_up = ShownItems.of_catalogue(serving, self._catalogue)
        self._looked_up_counts = self._counts_of(serving)

    def change_items(self, changes: ItemChanges) -> None:
        """Applies changes of the catalogue to the bundles that serve; those that come or come back are made with them."""
        assert self._catalogue is not None
        self._catalogue.apply(changes)
        for runner in self._runners:
            runner.items = runner.items.changed(self._catalogue.since(runner.items.version))
        self._count_items()

    def look_up_counts(self, table: ItemCounts) -> list[BundleCounts]:
        """A table as the bundles that serve have it, for :meth:`change_counts`. May run on another thread, one call at a time."""
        return [BundleCounts.of(runner.serving, table) for runner in self._runners]

    def change_counts(self, table: ItemCounts, looked_up: Sequence[BundleCounts]) -> None:
        """Serves with another table of counts. A bundle that came after the look-up takes it now."""
        self._table = table
        known = {id(counts.serving): counts for counts in looked_up}
        for runner in self._runners:
            runner.counts = known.get(id(runner.serving)) or BundleCounts.of(runner.serving, table)

    def start(self, coming: BundleRunner, queued: Iterable[MemberKey]) -> None:
        """Begins to migrate members to a coming bundle. ``queued`` members have answers that are not encoded yet."""
        self._stale.migration_starts(coming.engine)
        # Out-of-order plays of queued members: the current engine has not seen them yet, and may never see them.
        self._stale.add(queued)
        self._migration = MemberMigration(self._current, coming, self._layout, self._history_of)

    def is_migrating_to(self, serving: Serving) -> bool:
        """Whether members migrate to this bundle now."""
        return self._migration is not None and self._migration.coming.serving is serving

    def step(self) -> bool:
        """Migrates the next members; returns whether there are more.

        Raises: BundleError when most of them cannot be encoded, and the migration should be aborted; DeviceLost.
        """
        assert self._migration is not None
        is_more = self._migration.step()
        self._metrics.migrated_members.set(len(self._migration.members))
        return is_more

    def abort(self) -> Collection[MemberKey]:
        """The current bundle serves every member again. Returns the members who had moved: its responder missed their plays."""
        if self._migration is None:
            return ()
        migrated = self._migration.members
        self._stale.migration_aborts(self._current.engine, self._migration.coming.engine)
        self._end_migration()
        return migrated

    def finish(self, queued: Iterable[MemberKey]) -> int:
        """The coming bundle serves every member from now on; returns how many members had moved before."""
        assert self._migration is not None
        old, coming, migrated = self._current, self._migration.coming, self._migration.members
        # A queued member's next request uses an older context than the one the coming engine may have cached: drop that cache.
        self._stale.add(queued)
        self._stale.migration_ends(old.engine, coming.engine, migrated)
        self._end_migration()
        self.previous = old.serving
        self._serve(coming)
        return len(migrated)

    def _end_migration(self) -> None:
        self._migration = None
        self._metrics.migrated_members.set(0)

    def _items_of(self, serving: Serving, looked_up: ShownItems | None = None) -> ShownItems:
        """What a bundle shows as of now; ``looked_up`` is of an earlier moment, and perhaps of another bundle."""
        if self._catalogue is None:
            return ShownItems.of_bundle(serving)
        if looked_up is None or looked_up.serving is not serving:
            return ShownItems.of_catalogue(serving, self._catalogue)
        return looked_up.changed(self._catalogue.since(looked_up.version))

    def _counts_of(self, serving: Serving) -> BundleCounts | None:
        return None if self._table is None else BundleCounts.of(serving, self._table)

    def _count_items(self) -> None:
        if self._catalogue is not None:
            items, num_items = self._current.items, self._catalogue.num_items
            self._metrics.shows(
                items.catalogue_offset, num_items, items.num_hidden, len(items.added), items.num_left_out
            )

    def _serve(self, runner: BundleRunner) -> None:
        self._current = runner
        self._count_items()
        self._metrics.serves(runner.serving.version, runner.serving.created_s)
