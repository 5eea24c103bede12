"""Names and labels of all metrics. Dashboards and alerts depend on them, so a change is deliberate and in the changelog."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from intentrec_core.errors import BundleFault, RejectReason
from stream.ops.metrics import MAX_BUNDLES, Metrics, PlayOutcome

INSTRUMENTS = {
    "batch_plays": "histogram",
    "broker_away": "gauge",
    "buffered_plays": "gauge",
    "bundle_created_timestamp_seconds": "gauge",
    "bundle_info": "gauge bundle",
    "bundle_rejections": "counter reason",
    "bundle_sequence": "gauge",
    "bundle_swap_seconds": "histogram",
    "bundle_swaps": "counter",
    "catalogue_added_items": "gauge",
    "catalogue_hidden_items": "gauge",
    "catalogue_items": "gauge",
    "catalogue_lag_records": "gauge",
    "catalogue_left_out_items": "gauge",
    "catalogue_offset": "gauge",
    "catalogue_read_timestamp_seconds": "gauge",
    "catalogue_syncs": "counter outcome",
    "catalogue_unreadable": "counter",
    "catalogue_cut_items": "gauge",
    "changelog_bytes": "counter",
    "coalesced_plays": "counter",
    "cut_lists": "counter",
    "data_drift_ratio": "gauge field",
    "engine_evictions": "counter",
    "engine_lookups": "counter result",
    "engine_members": "gauge",
    "engine_positions": "counter",
    "engine_slots": "gauge",
    "engine_slots_used": "gauge",
    "fallbacks": "counter",
    "forgotten_members": "counter",
    "gateway_bytes": "gauge",
    "gateway_evicted_members": "counter",
    "gateway_forwarded": "counter outcome",
    "gateway_members": "gauge",
    "gateway_messages": "counter outcome",
    "gateway_partitions_ready": "gauge",
    "gateway_plays": "counter outcome",
    "gateway_request_seconds": "histogram path",
    "gateway_requests": "counter path outcome",
    "gateway_skipped_events": "counter",
    "gateway_store_failures": "counter",
    "gateway_streams": "gauge",
    "hidden_lists": "counter filter reason",
    "index_recall_ratio": "gauge",
    "item_counts_sequence": "gauge",
    "item_counts_timestamp_seconds": "gauge",
    "judged_hits": "counter bundle",
    "judged_intents": "counter bundle head",
    "judged_intents_right": "counter bundle head",
    "judged_plays": "counter bundle",
    "judged_popular_hits": "counter bundle",
    "judged_markov_hits": "counter bundle",
    "judged_popular_intents_right": "counter bundle head",
    "judged_reciprocal_ranks": "counter bundle",
    "lag_plays": "gauge",
    "members": "gauge",
    "outputs_published": "counter kind",
    "partitions_assigned": "gauge",
    "partitions_ready": "gauge",
    "partitions_reopened": "counter reason",
    "plays": "counter outcome",
    "plays_consumed": "counter",
    "plays_rejected": "counter reason",
    "publication_latency_seconds": "histogram",
    "publish_failures": "counter",
    "recovery_records": "counter",
    "recovery_seconds": "histogram",
    "short_lists": "counter",
    "stage_seconds": "histogram stage",
    "migrated_members": "gauge",
    "trainer_candidate_ratio": "gauge",
    "trainer_gated": "counter reason",
    "trainer_logged_plays": "counter",
    "trainer_published_timestamp_seconds": "gauge",
    "trainer_run_seconds": "histogram",
    "trainer_running_ratio": "gauge",
    "trainer_runs": "counter outcome",
    "transaction_seconds": "histogram",
    "transactions": "counter outcome",
}


def instruments(metrics: Metrics) -> dict[str, str]:
    metrics.judges("b1", ["genre"])
    metrics.serves("b1", 0.0)
    metrics.filters(["at_most maturity"])
    metrics.trainer_gated.labels("passed")
    metrics.data_drift.labels("genre")
    found = {}
    for family in metrics.registry.collect():
        labels = {name: None for sample in family.samples for name in sample.labels if name != "le"}
        assert family.name.startswith("intentrec_")
        assert family.documentation
        found[family.name.removeprefix("intentrec_")] = " ".join([family.type, *labels])
    return found


def test_names_types_and_labels_are_frozen() -> None:
    assert instruments(Metrics()) == INSTRUMENTS


def test_nothing_about_a_member_or_an_item_is_a_label() -> None:
    labels = {label for text in instruments(Metrics()).values() for label in text.split()[1:]}
    assert labels == {"bundle", "field", "filter", "head", "kind", "outcome", "path", "reason", "result", "stage"}


def test_each_value_of_an_enum_is_there_before_it_happens() -> None:
    sample = Metrics().registry.get_sample_value
    for reason in RejectReason:
        assert sample("intentrec_plays_rejected_total", {"reason": reason}) == 0
    for fault in BundleFault:
        assert sample("intentrec_bundle_rejections_total", {"reason": fault}) == 0
    for outcome in PlayOutcome:
        assert sample("intentrec_plays_total", {"outcome": outcome}) == 0


def test_series_of_old_bundles_are_dropped() -> None:
    metrics = Metrics()
    for i in range(MAX_BUNDLES + 3):
        metrics.judges(f"b{i}", ["genre", "era"])
        metrics.judges("b0", ["genre", "era"])
    sample = metrics.registry.get_sample_value
    assert sample("intentrec_judged_plays_total", {"bundle": "b0"}) == 0
    assert sample("intentrec_judged_plays_total", {"bundle": "b1"}) is None
    assert sample("intentrec_judged_intents_total", {"bundle": "b1", "head": "era"}) is None
    assert sample("intentrec_judged_intents_total", {"bundle": f"b{MAX_BUNDLES + 2}", "head": "era"}) == 0


def test_the_serving_bundle_is_told_by_the_time_it_was_built_so_that_readers_compute_its_age() -> None:
    metrics = Metrics()
    sample = metrics.registry.get_sample_value
    assert sample("intentrec_bundle_created_timestamp_seconds") == 0, "no bundle serves yet: alerts filter on > 0"
    metrics.serves("b1", 1_772_396_100.0)
    metrics.serves("b2", 1_772_399_700.0)
    assert sample("intentrec_bundle_created_timestamp_seconds") == 1_772_399_700
    assert sample("intentrec_bundle_info", {"bundle": "b1"}) is None
    assert sample("intentrec_bundle_info", {"bundle": "b2"}) == 1


def test_two_processes_in_one_registry_are_a_mistake() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(registry)
