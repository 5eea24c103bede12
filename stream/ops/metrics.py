"""Every instrument of the project. The registry is injected; a label's values are an enum, a head or a bundle version.

Names are ``intentrec_<noun>_<unit>``. Never a label: a user, a session, an item, an offset. Bundle versions come one a
training run, so the series of all but the newest few are dropped.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from intentrec_core.errors import BundleFault, RejectReason
from stream.ops.bulk_histogram import BulkHistogram
from stream.wire.records import OutputKind

#: Dense around the objective, 50 ms from play to publication at the 99th percentile; the tail tells a swap (under a
#: second) from a rebalance (seconds) and from lag (minutes).
LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: Stages of one micro-batch: together below the batch deadline of 10 ms when all is well.
STAGE_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
LONG_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
#: Bundle versions with series of their own: more than an hour of the demo's training runs, or a day of production's.
MAX_BUNDLES = 16


class PlayOutcome(StrEnum):
    """What became of a valid play."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    REPLAYED = "replayed"


class PipelineStep(StrEnum):
    """Steps of a micro-batch, in data-flow order."""

    FOLD = "fold"
    ENCODE = "encode"
    JUDGE = "judge"
    SEARCH = "search"
    MESSAGES = "messages"


class Lookup(StrEnum):
    """Whether a member's keys and values were cached."""

    HIT = "hit"
    MISS = "miss"


class TransactionOutcome(StrEnum):
    """How a commit of state and offsets ended; ``committed`` also counts commits of a broker without transactions."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    FENCED = "fenced"


class TrainerOutcome(StrEnum):
    """How a training run ended. ``skipped``: too few new plays."""

    PUBLISHED = "published"
    GATED = "gated"
    FAILED = "failed"
    SKIPPED = "skipped"


class ReopenReason(StrEnum):
    """Why a partition's state was dropped and opened again."""

    SEND_FAILED = "send_failed"
    TRANSACTION_FAILED = "transaction_failed"
    REWOUND = "rewound"
    FENCED = "fenced"


class Metrics:
    """All instruments on one registry. A process makes one; tests make one each."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = CollectorRegistry() if registry is None else registry
        self._bundles: OrderedDict[str, tuple[str, ...]] = OrderedDict()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"intentrec_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"intentrec_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"intentrec_{name}_seconds", text, labels, buckets=buckets, registry=registry)

        def bulk(name: str, text: str, buckets: tuple[float, ...]) -> BulkHistogram:
            return BulkHistogram(f"intentrec_{name}", text, buckets, registry)

        # --- plays in
        self.plays_consumed = counter("plays_consumed_total", "Records of the plays topic taken into a micro-batch")
        self.plays = counter("plays_total", "Valid plays by what became of them, once committed", "outcome")
        self.plays_rejected = counter(
            "plays_rejected_total", "Plays sent to the dead letters, once committed", "reason"
        )
        self.coalesced_plays = counter(
            "coalesced_plays_total", "Plays answered by the outputs of a later one, in overload, once committed"
        )
        self.batch_plays = bulk("batch_plays", "Plays in a micro-batch", BATCH_BUCKETS)
        self.buffered_plays = gauge("buffered_plays", "Plays fetched and not yet processed")
        self.lag_plays = gauge("lag_plays", "Plays in the log and not committed yet, of the partitions served")
        self.stage_seconds = seconds("stage", "Time of one step of a micro-batch", STAGE_BUCKETS_S, "stage")

        # --- outputs
        self.outputs_published = counter("outputs_published_total", "Outputs the broker has acknowledged", "kind")
        self.publish_failures = counter("publish_failures_total", "Sends the broker has refused or not answered")
        self.publication_latency_seconds = bulk(
            "publication_latency_seconds",
            "From a play's record timestamp to the publication of its outputs",
            LATENCY_BUCKETS_S,
        )
        self.fallbacks = counter("fallbacks_total", "Lists of what is popular, where nothing known could be encoded")
        self.short_lists = counter("short_lists_total", "Lists shorter than asked for: the filters left no more items")

        # --- state
        self.partitions_assigned = gauge("partitions_assigned", "Partitions of the plays topic assigned to this worker")
        self.partitions_ready = gauge("partitions_ready", "Partitions restored and served")
        self.partitions_reopened = counter("partitions_reopened_total", "Partitions dropped and opened again", "reason")
        self.members = gauge("members", "Members whose history is held")
        self.forgotten_members = counter("forgotten_members_total", "Orders to forget a member that were followed")
        self.transactions = counter("transactions_total", "Commits of state and offsets", "outcome")
        self.transaction_seconds = seconds("transaction", "Time of a commit of state and offsets", STAGE_BUCKETS_S)
        self.changelog_bytes = counter(
            "changelog_bytes_total",
            "Bytes of keys and values of changelog records, before those of one commit are merged",
        )
        self.recovery_seconds = seconds("recovery", "From fencing a partition to its being ready", LONG_BUCKETS_S)
        self.recovery_records = counter("recovery_records_total", "Changelog records read when partitions were opened")

        # --- the engine
        self.engine_lookups = counter(
            "engine_lookups_total", "Members looked up in the cache of keys and values", "result"
        )
        self.engine_evictions = counter("engine_evictions_total", "Members whose slot went to another one")
        self.engine_positions = counter("engine_positions_total", "Plays encoded, those encoded again included")
        self.engine_slots = gauge("engine_slots", "Members the cache has room for")
        self.engine_slots_used = gauge("engine_slots_used", "Members cached by the bundle that serves")

        # --- bundles
        self.bundle_info = gauge("bundle_info", "1 for the bundle that serves", "bundle")
        self.bundle_created = gauge("bundle_created_timestamp_seconds", "When the bundle that serves was built")
        self.bundle_age_seconds = gauge("bundle_age_seconds", "Age of the bundle that serves")
        self.bundle_sequence = gauge("bundle_sequence", "Sequence number of the newest announcement taken")
        self.bundle_swaps = counter("bundle_swaps_total", "Bundles that took over from another one")
        self.bundle_rejections = counter("bundle_rejections_total", "Bundles announced and refused", "reason")
        self.bundle_swap_seconds = seconds(
            "bundle_swap", "From an announcement until everybody is served by it", LONG_BUCKETS_S
        )

        self.migrated_members = gauge(
            "migrated_members", "Members whom a coming bundle serves already; 0 but during a swap"
        )

        # --- each play judges the member's last prediction
        self.judged_plays = counter("judged_plays_total", "Plays of a member who had a prediction", "bundle")
        self.judged_hits = counter("judged_hits_total", "... whose item was among the 10 predicted", "bundle")
        self.judged_reciprocal_ranks = counter(
            "judged_reciprocal_ranks_total", "Sum of 1/rank, 0 beyond rank 10", "bundle"
        )
        self.judged_popular_hits = counter(
            "judged_popular_hits_total", "... whose item was among the 10 most played in the last 7 days", "bundle"
        )
        self.judged_intents = counter("judged_intents_total", "Predicted intents with a known truth", "bundle", "head")
        self.judged_intents_right = counter("judged_intents_right_total", "... that came true", "bundle", "head")
        self.judged_popular_intents_right = counter(
            "judged_popular_intents_right_total",
            "... where the commonest label of the last 7 days did",
            "bundle",
            "head",
        )

        # --- the trainer
        self.trainer_logged_plays = counter("trainer_logged_plays_total", "Plays written to the event log")
        self.trainer_runs = counter("trainer_runs_total", "Training runs by how they ended", "outcome")
        self.trainer_gated = counter("trainer_gated_total", "Bundles trained and not published", "reason")
        self.trainer_run_seconds = seconds(
            "trainer_run", "Time of a training run, publication included", LONG_BUCKETS_S
        )
        self.trainer_candidate_ratio = gauge(
            "trainer_candidate_ratio", "HR@10 of the newest candidate on held-out plays"
        )
        self.trainer_running_ratio = gauge(
            "trainer_running_ratio", "HR@10 of the bundle it would replace, on the same plays"
        )
        self.trainer_published = gauge("trainer_published_timestamp_seconds", "When a bundle was last published")

        self._touch()

    def _touch(self) -> None:
        """Makes every series of an enum exist at 0, so that a rate over its first increment is seen."""
        for outcome in PlayOutcome:
            self.plays.labels(outcome)
        for reason in RejectReason:
            self.plays_rejected.labels(reason)
        for stage in PipelineStep:
            self.stage_seconds.labels(stage)
        for kind in OutputKind:
            self.outputs_published.labels(kind)
        for reopened in ReopenReason:
            self.partitions_reopened.labels(reopened)
        for committed in TransactionOutcome:
            self.transactions.labels(committed)
        for lookup in Lookup:
            self.engine_lookups.labels(lookup)
        for fault in BundleFault:
            self.bundle_rejections.labels(fault)
        for ended in TrainerOutcome:
            self.trainer_runs.labels(ended)

    def serves(self, bundle: str, created_s: float) -> None:
        """Names the bundle that serves from now on. Units: ``created_s`` seconds since 1970."""
        self.bundle_info.clear()
        self.bundle_info.labels(bundle).set(1)
        self.bundle_created.set(created_s)
        self.bundle_age_seconds.set_function(lambda: time.time() - created_s)

    def judges(self, bundle: str, heads: Sequence[str]) -> None:
        """Makes the series of ``bundle``, and drops those of the bundle unused for longest where they are too many."""
        by_bundle = (self.judged_plays, self.judged_hits, self.judged_reciprocal_ranks, self.judged_popular_hits)
        by_head = (self.judged_intents, self.judged_intents_right, self.judged_popular_intents_right)
        if bundle not in self._bundles:
            for judged in by_bundle:
                judged.labels(bundle)
            for judged, head in product(by_head, heads):
                judged.labels(bundle, head)
        self._bundles[bundle] = tuple(heads)
        self._bundles.move_to_end(bundle)
        while len(self._bundles) > MAX_BUNDLES:
            oldest, its_heads = self._bundles.popitem(last=False)
            for judged in by_bundle:
                judged.remove(oldest)
            for judged, head in product(by_head, its_heads):
                judged.remove(oldest, head)
