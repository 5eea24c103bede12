"""A histogram fed in bulk equals Prometheus's own."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from stream.ops.bulk_histogram import BulkHistogram

BUCKETS = (0.005, 0.01, 1, 2.5)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.005, 0.0051, 0.01, 0.5, 1.0, 2.5, 2.6, 1e9],
        [0.01, 0.006, 0.0051],  # all in one bucket, one of them at its edge
        [0.01, 0.006, 0.005],  # one below it
        [3.0, 1e9],
    ],
)
def test_it_is_collected_as_the_library_would(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bulk = BulkHistogram("some_seconds", "Some.", BUCKETS, ours)
    one_by_one = Histogram("some_seconds", "Some.", buckets=BUCKETS, registry=theirs)
    bulk.observe_many(values)
    for value in values:
        one_by_one.observe(value)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == expected
    assert bulk.count == len(values)


def test_observations_add_up() -> None:
    bulk = BulkHistogram("some_seconds", "Some.", BUCKETS, registry := CollectorRegistry())
    bulk.observe(0.2)
    bulk.observe_many([])
    bulk.observe_many([0.3, 3.0])
    assert registry.get_sample_value("some_seconds_count") == 3
    assert registry.get_sample_value("some_seconds_sum") == 3.5
    assert registry.get_sample_value("some_seconds_bucket", {"le": "1.0"}) == 2
