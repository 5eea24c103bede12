"""From bytes to bytes: records of plays in, recommendations and intents out, the state in between.

    records ─ fold ─▶ runs ─ encode ─▶ intents, user vectors ─┬─ search, judge, write ─▶ outputs, changelog
            └───────────── one thread ─────────────┘          └──────── another one ────────┘

Synchronous; it knows no Kafka client and no event loop, and looks at a clock to time its stages and for nothing else: what comes
out is a function of the records, the state and the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import BundleError, BundleFault, ConfigError
from intentrec_core.history.history import EventLayout, History
from stream.ops.metrics import Metrics, PipelineStep, PlayOutcome
from stream.pipeline.bundle_runner import BundleRunner
from stream.pipeline.folding import ContextRun, Folder, PartitionWork
from stream.pipeline.migration import MemberMigration
from stream.pipeline.prefill import PrefillQueue
from stream.pipeline.responder import timed
from stream.pipeline.stale_members import StaleMembers
from stream.wire.erasure_record import split_at_erasures
from stream.wire.records import OutputKind, OutputRecord, PartitionResult, SourceRecord, Write

if TYPE_CHECKING:
    from stream.bundles.serving import Serving
    from stream.pipeline.split import Slice

Order = Callable[[], None]
"""What is forgotten by what answers, between the same two micro-batches as here."""

__all__ = ["OutputKind", "OutputRecord", "PartitionResult", "Pipeline", "PipelineConfig", "SourceRecord"]


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How plays become outputs.

    ``num_partitions`` of the plays topic; ``max_tries`` is how often a play that crashes inference is tried by itself
    before it goes to the dead letters; ``max_prefill_positions`` as in :mod:`stream.pipeline.prefill`.

    Raises: ConfigError naming the value and what is allowed.
    """

    num_partitions: int
    plays_partitioner: Literal["murmur2", "any"] = "murmur2"
    num_recommendations: int = 10
    beta: float = 0.0
    max_tries: int = 2
    max_prefill_positions: int = 0

    def __post_init__(self) -> None:
        lows = {"num_partitions": 1, "num_recommendations": 1, "max_tries": 1, "beta": 0, "max_prefill_positions": 0}
        for name, low in lows.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"pipeline {name} is {getattr(self, name)}; allowed: {low} or more")


class Pipeline:
    """Folds plays into histories and answers each one.

    Not thread safe: one thread calls everything here, and one (it may be another) what :meth:`begin` returns, in that order.
    """

    def __init__(self, serving: Serving, config: PipelineConfig, metrics: Metrics) -> None:
        self.config = config
        self.metrics = metrics
        self.layout = EventLayout(serving.domain)
        self._states: dict[int, dict[str, History]] = {}
        self._prefill = PrefillQueue(config.max_prefill_positions, self.layout.size)
        self._stale_members = StaleMembers(max(serving.engine.num_slots, 1024))
        self._orders: list[Order] = []
        self._takeover: MemberMigration | None = None
        self._serve(BundleRunner(serving, config, self.layout, metrics))

    @property
    def serving(self) -> Serving:
        """The bundle that serves; during a takeover, the one that did before."""
        return self._side.serving

    def open_partition(self, partition: int, histories: dict[str, History]) -> None:
        """Takes over a partition with its restored state, which the pipeline owns from here on."""
        self.close_partition(partition)
        self._states[partition] = histories
        self._count_members()

    def close_partition(self, partition: int) -> None:
        """Drops a partition's state and everything derived from it; one that is not open is no error."""
        self._prefill.drop(partition)
        for user_id in self._states.pop(partition, ()):
            self._forget(MemberKey(partition, user_id))
        self._count_members()

    def _forget(self, member: MemberKey) -> None:
        """Drops everything derived from a member's history, by what is written behind this."""
        for side in (self._side,) if self._takeover is None else (self._side, self._takeover.coming):
            side.forget(member)
            self._orders.append(partial(side.answering.forget, member))
        self._stale_members.add([member])
        self._prefill.forget(member)

    def history(self, partition: int, user_id: str) -> History | None:
        """A member's state, to be read on the inference thread and not changed."""
        return self._states[partition].get(user_id)

    def process(
        self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False
    ) -> list[PartitionResult]:
        """:meth:`begin` and what it leaves to be written, one after the other."""
        return self.begin(batches, coalesced=coalesced)()

    def begin(self, batches: Mapping[int, Sequence[SourceRecord]], *, coalesced: bool = False) -> Write:
        """Processes the next records of open partitions, in source order, up to what is written to subscribers.

        Returns what writes that, and has one result a partition, in the order given; it touches nothing of this pipeline.

        ``coalesced``: of a member's plays only the last one is answered, and names the others; the state is the same.
        Outputs of members whose whole context has to be encoded may be held back, for :meth:`begin_prefill`.

        Where a member is forgotten, a partition's records are processed in parts up to that order, with a result for each.

        Raises: KeyError for a partition that is not open; EngineError when inference fails even for a context known to be
        good. No play makes it raise. After an error the state of these partitions is unknown: close them.
        """
        return self._in_order([self._begin(part, coalesced) for part in split_at_erasures(batches)])

    def _begin(self, batches: Mapping[int, Sequence[SourceRecord]], coalesced: bool) -> Write:
        folder = Folder(self.layout, self.config.num_partitions if self.config.plays_partitioner == "murmur2" else None)
        with timed(self.metrics, PipelineStep.FOLD):
            works = [
                folder.fold(partition, self._states[partition], records)
                for partition, records in batches.items()
                if records
            ]
        self._stale_members.add(folder.inserted)
        cache = self._takeover or self._side.engine
        at_once = self._prefill.enqueue(works, folder.waves, cache, coalesced=coalesced)
        write = self._answer(works, at_once, coalesced)
        for member in folder.forgotten:
            self._forget(member)
        num_records = sum(work.result.num_records for work in works)
        self.metrics.plays_consumed.inc(num_records)
        self.metrics.batch_plays.observe(num_records)
        self._count_members()
        return write

    @property
    def num_queued(self) -> int:
        """How often :meth:`begin_prefill` has something to answer."""
        return len(self._prefill)

    def answer_prefill(self) -> list[PartitionResult]:
        """:meth:`begin_prefill` and what it leaves to be written, one after the other."""
        return self.begin_prefill()()

    def begin_prefill(self) -> Write:
        """Answers the next of what was held back, oldest first: outputs and counts, and no records.

        Raises: as :meth:`begin`.
        """
        part = self._prefill.next()
        write = self._answer(part.works, part.waves, part.coalesced)
        for member in part.forgotten:
            self._forget(member)
        return self._in_order([write])

    def start_migration(self, serving: Serving) -> None:
        """From here on :meth:`step_migration` moves members to another bundle, until :meth:`swap`.

        Raises: BundleError when its domain would give the histories another meaning; the old bundle goes on serving.
        """
        if serving.domain.fingerprint != self.serving.domain.fingerprint:
            detail = "declares other ground state than the histories hold"
            raise BundleError(BundleFault.DOMAIN, serving.version, detail)
        coming = BundleRunner(serving, self.config, self.layout, self.metrics, self._side)
        self.abort_migration()
        self._stale_members.migration_starts(serving.engine)
        # Late plays of whoever waits the old engine has not seen yet, and may never see.
        self._stale_members.add(self._prefill.members())
        self._takeover = MemberMigration(self._side, coming, self.layout, self._history_of)

    def step_migration(self) -> bool:
        """Encodes and moves the next members; returns whether there are more.

        Raises: BundleError when most of them cannot be encoded: the old bundle serves everybody again; DeviceLost.
        """
        assert self._takeover is not None
        try:
            is_more = self._takeover.advance()
        except BundleError:
            self.abort_migration()
            raise
        self.metrics.migrated_members.set(len(self._takeover.members))
        return is_more

    def abort_migration(self) -> None:
        """The old bundle serves everybody again; nothing happens where none was begun."""
        if self._takeover is not None:
            self._stale_members.migration_aborts(self._side.engine, self._takeover.coming.engine)
            answering = self._side.answering
            self._orders += [partial(answering.forget, member) for member in self._takeover.members]
            self._end_migration()

    def swap(self, serving: Serving) -> int:
        """Serves with another bundle from the next call on; returns how many members it had taken over before.

        Raises: as :meth:`start_migration`, where that was not called.
        """
        if self._takeover is None or self._takeover.coming.serving is not serving:
            self.start_migration(serving)
        assert self._takeover is not None
        old, coming, taken_over = self._side, self._takeover.coming, self._takeover.members
        # Of whoever waits an older context comes next than one that the coming engine may have begun with.
        self._stale_members.add(self._prefill.members())
        self._stale_members.migration_ends(old.engine, coming.engine, taken_over)
        self._end_migration()
        self._serve(coming)
        return len(taken_over)

    def _end_migration(self) -> None:
        self._takeover = None
        self.metrics.migrated_members.set(0)

    def _history_of(self, member: MemberKey) -> History | None:
        return self._states.get(member.partition, {}).get(member.user_id)

    def _serve(self, side: BundleRunner) -> None:
        self._side = side
        self.metrics.serves(side.serving.version, side.serving.created_s)

    def _answer(self, works: Sequence[PartitionWork], waves: Sequence[Sequence[ContextRun]], coalesced: bool) -> Write:
        """Encodes; returns what answers and counts."""
        moved: Slice | None = None
        if self._takeover is not None:
            waves, moved = self._takeover.deal(works, waves)
        answers = [self._side.begin(works, waves, coalesced) if waves else partial(_leave_unanswered, works)]
        if self._takeover is not None and moved is not None:
            answers.append(self._takeover.coming.begin(moved.works, moved.waves, coalesced))
        self.metrics.engine_slots.set(self._side.engine.num_slots)
        self.metrics.engine_slots_used.set(self._side.engine.num_cached)
        orders = self._take_orders()

        def write() -> list[PartitionResult]:
            _carry_out(orders)
            for answer in answers:
                answer()
            results = self._counted(works)
            if moved is not None:
                of = {result.partition: result for result in results}
                for share in self._counted(moved.works):
                    of[share.partition].take(share)
            return results

        return write

    def _in_order(self, writes: Sequence[Write]) -> Write:
        """What writes all of them, and then carries out what was ordered behind the last one."""
        orders = self._take_orders()

        def write() -> list[PartitionResult]:
            results = [result for write_part in writes for result in write_part()]
            _carry_out(orders)
            return results

        return write

    def _take_orders(self) -> list[Order]:
        orders, self._orders = self._orders, []
        return orders

    def _counted(self, works: Sequence[PartitionWork]) -> list[PartitionResult]:
        """The works' results, with the counts of what became of their plays."""
        metrics = self.metrics
        for work in works:
            result, counts = work.result, work.result.counts
            num_bytes = sum(len(key) + len(value or b"") for key, value in result.changelog.items())
            counts.add(metrics.changelog_bytes, amount=num_bytes)
            counts.add(metrics.plays, PlayOutcome.APPLIED, amount=result.num_applied)
            counts.add(metrics.plays, PlayOutcome.DUPLICATE, amount=result.num_duplicates)
            counts.add(metrics.plays, PlayOutcome.LATE, amount=result.num_late)
            counts.add(metrics.plays, PlayOutcome.REPLAYED, amount=result.num_replayed)
            counts.add(metrics.forgotten_members, amount=result.num_forgotten)
            for reason in work.reasons:
                counts.add(metrics.plays_rejected, reason, amount=1)
        return [work.result for work in works]

    def _count_members(self) -> None:
        self.metrics.members.set(sum(len(histories) for histories in self._states.values()))


def _leave_unanswered(works: Sequence[PartitionWork]) -> None:
    """Of plays of which none is answered now: dead letters and late ones."""
    for work in works:
        work.result.outputs = [pending for pending in work.pending if isinstance(pending, OutputRecord)]


def _carry_out(orders: Sequence[Order]) -> None:
    for order in orders:
        order()
