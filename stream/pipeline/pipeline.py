"""The pipeline from bytes to bytes: takes records of plays, keeps the state, returns recommendations and intents.

    records ─ fold ─▶ FoldedBatch ─ encode ─▶ EncodedBatch ─┬─ search, score, write ─▶ PartitionResult: outputs, changelog
            └──────────── inference thread ─────────────┘   └─────────── responder thread ───────────┘

Synchronous. It knows no Kafka client and no event loop, and reads a clock only to time its steps: what comes out is a function
of the records, the state and the bundle, and of the catalogue and the counts of plays where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import BundleError
from intentrec_core.history.history import EventLayout, History
from stream.ops.metrics import Metrics, PipelineStep
from stream.pipeline.bundle_switch import BundleSwitch
from stream.pipeline.config import PipelineConfig
from stream.pipeline.folding import FoldedBatch, Folder
from stream.pipeline.prefill import PrefillQueue
from stream.pipeline.responder import EncodedBatch, EncodedSlice, forget, respond
from stream.pipeline.step_timer import timed
from stream.wire.erasure_record import split_at_erasures
from stream.wire.records import PartitionResult, SourceRecord

if TYPE_CHECKING:
    from intentrec_core.engine.item_counts import ItemCounts
    from stream.bundles.serving import Serving
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.live_catalogue import LiveCatalogue
    from stream.wire.catalogue_record import ItemChanges

__all__ = ["Pipeline", "PipelineConfig"]


class Pipeline:
    """Folds plays into histories and answers each one.

    Not thread safe. One thread calls everything here except :meth:`respond`, which one thread, the same or another one, calls
    with what :meth:`encode` and :meth:`encode_prefill` returned, in their order; and the two ``look_up`` methods, which any
    thread may call.

    ``catalogue``: the items that may be shown, whatever bundle serves; None: each bundle shows its own. ``counts``: the newest
    table of counts of plays; None: there is none yet.
    """

    def __init__(
        self,
        serving: Serving,
        config: PipelineConfig,
        metrics: Metrics,
        catalogue: LiveCatalogue | None = None,
        counts: ItemCounts | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.layout = EventLayout(serving.domain)
        self._states: dict[int, dict[str, History]] = {}
        self._prefill = PrefillQueue(config.max_prefill_positions, self.layout.size)
        self._forgotten: list[MemberKey] = []
        self._bundles = BundleSwitch(serving, config, self.layout, metrics, self._history_of, catalogue, counts)

    @property
    def serving(self) -> Serving:
        """The bundle that serves; during a migration, the one whose members move."""
        return self._bundles.serving

    @property
    def previous(self) -> Serving | None:
        """The bundle that served before this one, still in memory."""
        return self._bundles.previous

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """Takes a partition with its restored state, which the pipeline owns from now on."""
        self.close_partition(partition)
        self._states[partition] = histories
        self._count_members()

    def close_partition(self, partition: int) -> None:
        """Drops a partition's state and everything derived from it; one that is not open is no error."""
        self._prefill.drop(partition)
        for user_id in self._states.pop(partition, ()):
            self._forget(MemberKey(partition, user_id))
        self._count_members()

    def history(self, partition: int, user_id: str) -> History | None:
        """A member's state, to be read on the inference thread and not changed."""
        return self._states[partition].get(user_id)

    def process(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        """:meth:`encode` and :meth:`respond` in one call."""
        return self.respond(self.encode(batches, coalesced=coalesced))

    def encode(self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False) -> list[EncodedBatch]:
        """Folds and encodes the next records of open partitions, in source order.

        ``coalesced``: of a member's plays only the last one is answered, and names the others; the state is the same. Answers
        of members who need a full prefill may be queued for :meth:`encode_prefill`. A micro-batch is split after each erasure
        request, and each stretch of records is encoded by itself.

        Raises: KeyError for a partition that is not open; EngineError when inference fails even for a context known to be
        good. No play makes it raise. After an error the state of these partitions is unknown: close them.
        """
        encoded: list[EncodedBatch] = []
        try:
            for stretch in split_at_erasures(batches):
                folded = self._fold(stretch, coalesced)
                encoded.append(self._encode(self._prefill.enqueue(folded, self._bundles.cache)))
                num_records = sum(partition.num_records for partition in folded.partitions)
                self.metrics.plays_consumed.inc(num_records)
                self.metrics.batch_plays.observe(num_records)
        except BaseException:
            # The responders do not get what was encoded so far, and so would keep what they must drop.
            self._forgotten = [member for batch in encoded for member in batch.forgotten] + self._forgotten
            raise
        return self._with_forgotten(encoded)

    @property
    def num_queued_chunks(self) -> int:
        """Number of queued prefill chunks."""
        return len(self._prefill)

    def encode_prefill(self) -> list[EncodedBatch]:
        """Encodes the oldest queued chunk: its results hold outputs and counts, and no records.

        Raises: as :meth:`encode`.
        """
        return self._with_forgotten([self._encode(self._prefill.next())])

    def respond(self, encoded: Sequence[EncodedBatch]) -> list[PartitionResult]:
        """Answers what was encoded: the results of each stretch of records, one a partition in the order given.

        Touches nothing else of this pipeline, so that the next micro-batch can be encoded meanwhile.
        """
        results: list[PartitionResult] = []
        for number, batch in enumerate(encoded):
            try:
                results += respond(batch, self.metrics)
            except BaseException:  # of batches that are not answered, members are still forgotten
                for later in encoded[number + 1 :]:
                    forget(later)
                raise
        return results

    def change_items(self, changes: ItemChanges) -> None:
        """Applies changes of the catalogue to all bundles: from the next micro-batch on, no list has a withdrawn item."""
        self._bundles.change_items(changes)

    def look_up_counts(self, table: ItemCounts) -> list[BundleCounts]:
        """Prepares :meth:`change_counts`. On any thread, one call at a time."""
        return self._bundles.look_up_counts(table)

    def change_counts(self, table: ItemCounts, looked_up: Sequence[BundleCounts]) -> None:
        """Answers with another table of counts from the next micro-batch on. ``looked_up``: what :meth:`look_up_counts` gave."""
        self._bundles.change_counts(table, looked_up)

    def look_up(self, serving: Serving) -> None:
        """Prepares :meth:`start_migration`, which would have to look up all items of the bundle otherwise. On any thread, one
        call at a time.
        """
        self._bundles.look_up(serving)

    def start_migration(self, serving: Serving) -> None:
        """From now on :meth:`step_migration` moves members to another bundle, until :meth:`swap`.

        Raises: BundleError when its domain would give the histories another meaning; the old bundle goes on serving.
        """
        coming = self._bundles.prepare(serving)
        self.abort_migration()
        self._bundles.start(coming, self._prefill.members())

    def step_migration(self) -> bool:
        """Encodes and moves the next members; returns whether there are more.

        Raises: BundleError when most of them cannot be encoded: the old bundle serves every member again; DeviceLost.
        """
        try:
            return self._bundles.step()
        except BundleError:
            self.abort_migration()
            raise

    def abort_migration(self) -> None:
        """The old bundle serves every member again; nothing happens where no migration was started."""
        self._forgotten += self._bundles.abort()

    def swap(self, serving: Serving) -> int:
        """Serves every member with another bundle from the next call on; returns how many members had moved to it before.

        Raises: as :meth:`start_migration`, where that was not called.
        """
        if not self._bundles.is_migrating_to(serving):
            self.start_migration(serving)
        return self._bundles.finish(self._prefill.members())

    def _fold(self, batches: Mapping[int, Sequence[SourceRecord]], coalesced: bool) -> FoldedBatch:
        config = self.config
        num_partitions = config.num_partitions if config.plays_partitioner == "murmur2" else None
        folder = Folder(self.layout, num_partitions, config.changelog_schema, config.limits)
        with timed(self.metrics, PipelineStep.FOLD):
            for partition, records in batches.items():
                if records:
                    folder.fold(partition, self._states[partition], records)
            folded = folder.batch(coalesced=coalesced)
        self._bundles.mark_stale(folded.inserted)
        return folded

    def _encode(self, folded: FoldedBatch) -> EncodedBatch:
        try:
            slices = tuple(runner.encode(own) for runner, own in self._bundles.split(folded))
            engine = self.serving.engine
            self.metrics.engine_slots.set(engine.num_contexts)
            self.metrics.engine_slots_used.set(engine.num_contexts_in_use)
            self.metrics.engine_members.set(engine.num_cached)
            return self._encoded(folded, slices)
        finally:  # also where encoding raises: closing the partition forgets only members who still have a history
            for member in folded.forgotten:
                self._forget(member)
            self._count_members()

    def _forget(self, member: MemberKey) -> None:
        """Drops everything derived from a member's history; the responders do so before they answer the next batch."""
        self._bundles.forget(member)
        self._prefill.forget(member)
        self._forgotten.append(member)

    def _with_forgotten(self, encoded: list[EncodedBatch]) -> list[EncodedBatch]:
        """Members forgotten after the last batch do not wait for the next micro-batch."""
        return [*encoded, self._encoded(FoldedBatch((), ()), ())] if self._forgotten else encoded

    def _encoded(self, folded: FoldedBatch, slices: tuple[EncodedSlice, ...]) -> EncodedBatch:
        forgotten, self._forgotten = tuple(self._forgotten), []
        return EncodedBatch(folded.partitions, slices, forgotten, self._bundles.responders)

    def _history_of(self, member: MemberKey) -> History | None:
        return self._states.get(member.partition, {}).get(member.user_id)

    def _count_members(self) -> None:
        self.metrics.members.set(sum(len(histories) for histories in self._states.values()))
