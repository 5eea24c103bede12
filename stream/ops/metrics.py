"""All Prometheus metrics of the project, on an injected registry.

Names are ``intentrec_<noun>_<unit>``. Label values come from enums, or are a head or a filter of a domain, or the version of a
bundle. A user, session, item or offset is never a label. Each training run brings a new bundle version, so only the newest
MAX_BUNDLES versions keep their series.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from intentrec_core.errors import BundleFault, HidingReason, RejectReason
from stream.ops.bulk_histogram import BulkHistogram
from stream.wire.records import OutputKind

#: Dense around the objective, 50 ms from play to publication at the 99th percentile of a worker on machines of its own. The
#: tail separates load and swaps (below a second, where the alert begins) from a rebalance (seconds) and from lag (minutes).
LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
#: Steps of one micro-batch, and commits. One play waits at most for the batch deadline (1 ms) and is encoded in a third of a
#: millisecond; a full micro-batch of 256 plays takes about 50 ms, a commit 9 to 30 ms.
STAGE_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
LONG_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
#: Bundle versions that keep their series: 16 hours of training runs at the default interval.
MAX_BUNDLES = 16


class PlayOutcome(StrEnum):
    """The outcome of a valid play."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    REPLAYED = "replayed"


class PipelineStep(StrEnum):
    """The steps of a micro-batch, in data-flow order."""

    FOLD = "fold"
    ENCODE = "encode"
    SEARCH = "search"
    JUDGE = "judge"
    MESSAGES = "messages"


class Lookup(StrEnum):
    """Whether a member's keys and values were in the cache."""

    HIT = "hit"
    MISS = "miss"


class TransactionOutcome(StrEnum):
    """How a commit of state and offsets ended. ``committed`` includes commits on a broker without transactions."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    FENCED = "fenced"


class TrainerOutcome(StrEnum):
    """How a training run ended. ``skipped``: there were too few new plays."""

    PUBLISHED = "published"
    GATED = "gated"
    FAILED = "failed"
    SKIPPED = "skipped"


class SyncOutcome(StrEnum):
    """How copying the catalogue file to the items topic ended. ``refused``: something is wrong with the file."""

    SYNCED = "synced"
    REFUSED = "refused"
    FAILED = "failed"


class ReopenReason(StrEnum):
    """Why a partition's state was dropped and restored again. ``rewound``: the log does not go on where the last fetch ended."""

    INFERENCE_FAILED = "inference_failed"
    SEND_FAILED = "send_failed"
    TRANSACTION_FAILED = "transaction_failed"
    REWOUND = "rewound"
    FENCED = "fenced"


class GatewayPath(StrEnum):
    """What a request to a gateway asks for."""

    INTENTS = "intents"
    RECOMMENDATIONS = "recommendations"
    ROWS = "rows"
    STREAM = "stream"
    RANK = "rank"
    TICKETS = "tickets"
    PLAYS = "plays"
    ITEMS = "items"
    OPERATORS = "operators"
    OTHER = "other"


class RequestOutcome(StrEnum):
    """How a request to a gateway was answered: ``refused`` by a status of 4xx, ``failed`` by one of 5xx."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"


class ReadOutcome(StrEnum):
    """What became of a message that a gateway read. ``stale``: at or below the member's newest one."""

    TAKEN = "taken"
    STALE = "stale"
    UNREADABLE = "unreadable"


class SentPlay(StrEnum):
    """What became of a play that was posted to a gateway. ``failed``: the broker did not take it in time."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"


class ForwardOutcome(StrEnum):
    """What became of a request that a gateway passed on to another."""

    ANSWERED = "answered"
    FAILED = "failed"


class Metrics:
    """All metrics of one process, on one registry. Each test makes its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._bundles: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        create = _Factory(self.registry)
        self._create_plays(create)
        self._create_outputs(create)
        self._create_partitions(create)
        self._create_engine(create)
        self._create_bundles(create)
        self._create_catalogue(create)
        self._create_item_counts(create)
        self._create_live_quality(create)
        self._create_trainer(create)
        self._create_gateway(create)

    def serves(self, bundle: str, created_s: float) -> None:
        """Records the bundle that serves from now on. Units: ``created_s`` in seconds since 1970."""
        self.bundle_info.clear()
        self.bundle_info.labels(bundle).set(1)
        self.bundle_created.set(created_s)

    def shows(self, offset: int | None, num_items: int, num_hidden: int, num_added: int, num_left_out: int) -> None:
        """Records what is known of the catalogue, and how the serving bundle's items differ from it."""
        self.catalogue_left_out_items.set(num_left_out)
        self.catalogue_offset.set(-1 if offset is None else offset)
        self.catalogue_items.set(num_items)
        self.catalogue_hidden_items.set(num_hidden)
        self.catalogue_added_items.set(num_added)

    def read_items(self, num_waiting: float, as_of_s: float) -> None:
        """Records how far this worker is with the items topic.

        ``num_waiting``: records that are not applied yet, NaN where that is not known. ``as_of_s``: every record written before
        this time, in seconds since 1970, is applied.
        """
        self.catalogue_lag.set(num_waiting)
        self.catalogue_read.set(as_of_s)

    def filters(self, names: Sequence[str]) -> None:
        """Creates the series of a domain's filters at 0, so that the first hidden list is seen as an increase."""
        for name, reason in product(names, HidingReason):
            self.hidden_lists.labels(name, reason)

    @property
    def judged_of_bundle(self) -> tuple[Counter, ...]:
        """Live-quality counters of a bundle, in the order of the sums of :mod:`intentrec_core.kernels.judged`."""
        return (
            self.judged_plays,
            self.judged_hits,
            self.judged_reciprocal_ranks,
            self.judged_popular_hits,
            self.judged_markov_hits,
        )

    @property
    def judged_of_head(self) -> tuple[Counter, ...]:
        """Those of a bundle and each of its heads, in the same order."""
        return self.judged_intents, self.judged_intents_right, self.judged_popular_intents_right

    def judges(self, bundle: str, heads: Sequence[str]) -> None:
        """Creates the live-quality series of ``bundle`` at 0; drops those of the least recently used bundle above MAX_BUNDLES."""
        by_bundle, by_head = self.judged_of_bundle, self.judged_of_head
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

    def _create_plays(self, create: _Factory) -> None:
        self.plays_consumed = create.counter(
            "plays_consumed_total", "Records of the plays topic taken into a micro-batch"
        )
        self.plays = create.counter("plays_total", "Valid plays by outcome, counted at the commit", outcome=PlayOutcome)
        self.plays_rejected = create.counter(
            "plays_rejected_total", "Plays sent to the dead-letter topic, counted at the commit", reason=RejectReason
        )
        self.coalesced_plays = create.counter(
            "coalesced_plays_total",
            "Plays answered by the message of a later play of the same member (overload), counted at the commit",
        )
        self.batch_plays = create.bulk("batch_plays", "Plays per micro-batch", BATCH_BUCKETS)
        self.buffered_plays = create.gauge("buffered_plays", "Plays fetched but not yet processed")
        self.lag_plays = create.gauge(
            "lag_plays", "Plays in the log that are not committed yet, in the partitions of this worker"
        )
        self.broker_away = create.gauge(
            "broker_away", "1 while the broker does not answer this worker or trainer; its lag is not measured then"
        )
        self.stage_seconds = create.seconds(
            "stage", "Duration of one step of a micro-batch", STAGE_BUCKETS_S, stage=PipelineStep
        )
        #: Looked up once: each micro-batch has five of them.
        self.step_seconds = {step: self.stage_seconds.labels(step) for step in PipelineStep}

    def _create_outputs(self, create: _Factory) -> None:
        self.outputs_published = create.counter(
            "outputs_published_total", "Outputs acknowledged by the broker", kind=OutputKind
        )
        self.publish_failures = create.counter(
            "publish_failures_total", "Sends that the broker refused or did not acknowledge"
        )
        self.publication_latency_seconds = create.bulk(
            "publication_latency_seconds",
            "Seconds from the timestamp of a play's record to the publication of its outputs",
            LATENCY_BUCKETS_S,
        )
        self.fallbacks = create.counter(
            "fallbacks_total", "Recommendations of popular items, because the bundle knows no recent item of the member"
        )
        self.index_recall = create.gauge(
            "index_recall_ratio",
            "Share of the exact best items that the index found, over its last 500 probes; one query in 1,000 is probed; NaN "
            "before 100 probes",
        )
        self.index_recall.set(float("nan"))
        self.short_lists = create.counter(
            "short_lists_total", "Recommendations with fewer items than configured, because the filters left no more"
        )
        self.cut_lists = create.counter(
            "cut_lists_total",
            "Recommendations sent without reasons and rows, or with titles cut too, because the topic takes no larger message",
        )
        self.hidden_lists = create.counter(
            "hidden_lists_total",
            "Recommendations without any item, because this filter of the domain hides every item (alone or with others)",
            "filter",
            "reason",
        )

    def _create_partitions(self, create: _Factory) -> None:
        self.partitions_assigned = create.gauge(
            "partitions_assigned", "Partitions of the plays topic assigned to this worker"
        )
        self.partitions_ready = create.gauge("partitions_ready", "Partitions that are restored and being served")
        self.partitions_reopened = create.counter(
            "partitions_reopened_total", "Partitions whose state was dropped and restored again", reason=ReopenReason
        )
        self.members = create.gauge("members", "Members whose history is in memory")
        self.forgotten_members = create.counter("forgotten_members_total", "Erasure requests carried out")
        self.transactions = create.counter(
            "transactions_total", "Commits of state and offsets", outcome=TransactionOutcome
        )
        self.transaction_seconds = create.seconds(
            "transaction", "Duration of a commit of state and offsets", STAGE_BUCKETS_S
        )
        self.changelog_bytes = create.counter(
            "changelog_bytes_total",
            "Bytes of keys and values of changelog records, before the records of one commit are merged",
        )
        self.recovery_seconds = create.seconds(
            "recovery", "Seconds from fencing a partition until it is ready", LONG_BUCKETS_S
        )
        self.recovery_records = create.counter("recovery_records_total", "Changelog records read to restore partitions")

    def _create_engine(self, create: _Factory) -> None:
        self.engine_lookups = create.counter(
            "engine_lookups_total", "Lookups of a member in the cache of keys and values", result=Lookup
        )
        self.engine_evictions = create.counter(
            "engine_evictions_total", "Members evicted from the cache because another member needed memory"
        )
        self.engine_positions = create.counter(
            "engine_positions_total", "Plays encoded, including plays that were encoded before"
        )
        self.engine_slots = create.gauge("engine_slots", "Whole contexts that fit into the cache of the serving bundle")
        self.engine_slots_used = create.gauge(
            "engine_slots_used",
            "Whole contexts that fit into those slots of the cache in which a member is cached",
        )
        self.engine_members = create.gauge("engine_members", "Members cached by the engine of the serving bundle")

    def _create_bundles(self, create: _Factory) -> None:
        self.bundle_info = create.gauge("bundle_info", "1 for the version of the serving bundle", "bundle")
        self.bundle_created = create.gauge(
            "bundle_created_timestamp_seconds",
            "Unix time at which the serving bundle was built; 0 while no bundle serves",
        )
        self.bundle_sequence = create.gauge("bundle_sequence", "Sequence number of the newest announcement accepted")
        self.bundle_swaps = create.counter("bundle_swaps_total", "Swaps from one serving bundle to another")
        self.bundle_rejections = create.counter(
            "bundle_rejections_total", "Announced bundles that were refused", reason=BundleFault
        )
        self.bundle_swap_seconds = create.seconds(
            "bundle_swap", "Seconds from an announcement until its bundle serves every member", LONG_BUCKETS_S
        )
        self.migrated_members = create.gauge(
            "migrated_members", "Members already served by the new bundle during a swap; 0 otherwise"
        )

    def _create_catalogue(self, create: _Factory) -> None:
        self.catalogue_offset = create.gauge(
            "catalogue_offset", "Offset of the newest record of the items topic that lists take into account; -1: none"
        )
        self.catalogue_lag = create.gauge(
            "catalogue_lag_records",
            "Records of the items topic that wait: lists do not take them into account yet; NaN: it is gone, "
            "has several partitions, was made anew and holds no item, or cannot be read",
        )
        self.catalogue_read = create.gauge(
            "catalogue_read_timestamp_seconds",
            "When all of the items topic was last known: lists take into account what was written before; 0: it is not followed",
        )
        self.catalogue_items = create.gauge("catalogue_items", "Items in the items topic, withdrawn ones left out")
        self.catalogue_hidden_items = create.gauge(
            "catalogue_hidden_items",
            "Items of the serving bundle that are in no list: the items topic does not have them",
        )
        self.catalogue_added_items = create.gauge(
            "catalogue_added_items", "Items that are new to the serving bundle, and are searched beside its index"
        )
        self.catalogue_left_out_items = create.gauge(
            "catalogue_left_out_items", "Items that are in no list before the next bundle: too many are new to this one"
        )
        self.catalogue_unreadable = create.counter(
            "catalogue_unreadable_total", "Records of the items topic that are no items; their items are withdrawn"
        )
        self.catalogue_cut_items = create.gauge(
            "catalogue_cut_items",
            "Items that are shown without an attribute whose value in the items topic cannot be read",
        )
        self.catalogue_syncs = create.counter(
            "catalogue_syncs_total", "Copies of the catalogue file to the items topic by outcome", outcome=SyncOutcome
        )

    def _create_item_counts(self, create: _Factory) -> None:
        self.item_counts_sequence = create.gauge(
            "item_counts_sequence",
            "Sequence number of the newest table of counts of plays: written by this trainer, or used by this worker; 0: none",
        )
        self.item_counts_written = create.gauge(
            "item_counts_timestamp_seconds", "When that table was written, as Unix time; 0: there is none"
        )

    def _create_live_quality(self, create: _Factory) -> None:
        self.judged_plays = create.counter(
            "judged_plays_total", "Plays of members for whom a prediction had been made", "bundle"
        )
        self.judged_hits = create.counter(
            "judged_hits_total", "Judged plays whose item was among the 10 predicted items", "bundle"
        )
        self.judged_reciprocal_ranks = create.counter(
            "judged_reciprocal_ranks_total", "Sum of 1/rank over judged plays, 0 beyond rank 10", "bundle"
        )
        self.judged_popular_hits = create.counter(
            "judged_popular_hits_total",
            "Judged plays whose item was among the 10 most played items of the last 7 days",
            "bundle",
        )
        self.judged_markov_hits = create.counter(
            "judged_markov_hits_total",
            "Judged plays whose item was among the 10 that most often follow the member's last plays (Markov chain)",
            "bundle",
        )
        self.judged_intents = create.counter(
            "judged_intents_total", "Predicted intents whose observed label is known", "bundle", "head"
        )
        self.judged_intents_right = create.counter(
            "judged_intents_right_total", "Predicted intents that matched the observed label", "bundle", "head"
        )
        self.judged_popular_intents_right = create.counter(
            "judged_popular_intents_right_total",
            "Judged intents whose observed label was the most common one of the last 7 days",
            "bundle",
            "head",
        )

    def _create_gateway(self, create: _Factory) -> None:
        self.gateway_requests = create.counter(
            "gateway_requests_total", "Requests to the gateway", path=GatewayPath, outcome=RequestOutcome
        )
        self.gateway_request_seconds = create.seconds(
            "gateway_request",
            "Duration of a request to the gateway until its response begins",
            STAGE_BUCKETS_S,
            path=GatewayPath,
        )
        self.gateway_messages = create.counter(
            "gateway_messages_total", "Messages that the gateway read from the output topics", outcome=ReadOutcome
        )
        self.gateway_members = create.gauge(
            "gateway_members", "Members whose newest messages the gateway has in memory"
        )
        self.gateway_bytes = create.gauge("gateway_bytes", "Bytes of these messages, roughly")
        self.gateway_evicted_members = create.counter(
            "gateway_evicted_members_total", "Members that left the gateway's memory because it was full"
        )
        self.gateway_partitions_ready = create.gauge(
            "gateway_partitions_ready", "Partitions of the output topics whose members the gateway answers for"
        )
        self.gateway_streams = create.gauge("gateway_streams", "Streams that the gateway holds open")
        self.gateway_skipped_events = create.counter(
            "gateway_skipped_events_total", "Messages that a slow stream did not send, because a newer one had come"
        )
        self.gateway_plays = create.counter("gateway_plays_total", "Plays posted to the gateway", outcome=SentPlay)
        self.gateway_store_failures = create.counter(
            "gateway_store_failures_total",
            "Reads and writes of gateway_store that failed; the gateway goes on without it",
        )
        self.gateway_forwarded = create.counter(
            "gateway_forwarded_total", "Requests passed on to the gateway that has their member", outcome=ForwardOutcome
        )

    def _create_trainer(self, create: _Factory) -> None:
        self.trainer_logged_plays = create.counter("trainer_logged_plays_total", "Plays written to the event log")
        self.trainer_runs = create.counter("trainer_runs_total", "Training runs by outcome", outcome=TrainerOutcome)
        self.trainer_gated = create.counter(
            "trainer_gated_total", "Trained bundles that the gate did not let through", "reason"
        )
        self.trainer_run_seconds = create.seconds(
            "trainer_run", "Duration of a training run, including publication", LONG_BUCKETS_S
        )
        self.trainer_candidate_ratio = create.gauge(
            "trainer_candidate_ratio", "HR@10 of the newest candidate on held-out plays"
        )
        self.trainer_running_ratio = create.gauge(
            "trainer_running_ratio", "HR@10 of the bundle it would replace, on the same plays"
        )
        self.data_drift = create.gauge(
            "data_drift_ratio",
            "How far the newest run's data are from those of the serving bundle: the share of plays or items whose label would "
            "have to change, by field, and filter_<key> for a filter",
            "field",
        )
        self.trainer_published = create.gauge(
            "trainer_published_timestamp_seconds", "Unix time of the last publication of a bundle; 0 before the first"
        )


class _Factory:
    """Creates instruments with the project's prefix on one registry.

    A label whose values are an enum is given by keyword. Its series exist at 0 from the start, so that ``rate`` sees the first
    increment.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str, **enums: type[StrEnum]) -> Counter:
        counter = Counter(f"intentrec_{name}", text, (*labels, *enums), registry=self._registry)
        _create_series(counter, enums)
        return counter

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"intentrec_{name}", text, labels, registry=self._registry)

    def seconds(self, name: str, text: str, buckets: tuple[float, ...], **enums: type[StrEnum]) -> Histogram:
        histogram = Histogram(f"intentrec_{name}_seconds", text, tuple(enums), buckets=buckets, registry=self._registry)
        _create_series(histogram, enums)
        return histogram

    def bulk(self, name: str, text: str, buckets: tuple[float, ...]) -> BulkHistogram:
        return BulkHistogram(f"intentrec_{name}", text, buckets, self._registry)


def _create_series(metric: Counter | Histogram, enums: dict[str, type[StrEnum]]) -> None:
    for values in product(*enums.values()) if enums else ():
        metric.labels(*values)
