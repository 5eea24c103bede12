"""Quantiles within 1 %, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from stream.ops.quantiles import RELATIVE_ACCURACY, LatencyDigest, SlidingDigest


def test_a_quantile_is_within_one_percent_of_the_exact_one() -> None:
    latencies = np.random.default_rng(0).lognormal(-4.0, 1.0, 20_000)
    digest = LatencyDigest()
    for latency in latencies:
        digest.add(float(latency))
    for q in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = float(np.quantile(latencies, q, method="inverted_cdf"))
        # The promise, and a neighbour in rank: DDSketch takes the lower one of two.
        assert digest.quantile_s(q) == pytest.approx(exact, rel=RELATIVE_ACCURACY + 0.001)


def test_nothing_counted_has_no_quantile() -> None:
    assert LatencyDigest().quantile_s(0.5) is None


def test_a_clock_that_is_ahead_gives_negative_latencies_and_they_count() -> None:
    digest = LatencyDigest()
    for latency in (-1.0, 0.0, 1e9):
        digest.add(latency)
    assert digest.count == 3
    assert digest.quantile_s(0.0) == pytest.approx(-1.0, rel=RELATIVE_ACCURACY)
    assert digest.quantile_s(0.5) == 0.0
    assert digest.quantile_s(1.0) == pytest.approx(1e9, rel=RELATIVE_ACCURACY)


def test_memory_is_bounded_whatever_the_latencies_are() -> None:
    tracemalloc.start()
    try:
        digest = LatencyDigest()
        for latency in 10.0 ** np.random.default_rng(0).uniform(-12, 7, 20_000):
            digest.add(float(latency))
        assert tracemalloc.get_traced_memory()[0] < 150_000
    finally:
        tracemalloc.stop()


def test_merged_digests_count_as_one() -> None:
    low, high = LatencyDigest(), LatencyDigest()
    for _ in range(99):
        low.add(0.01)
    high.add(1.0)
    low.merge(high)
    assert low.count == 100
    assert low.quantile_s(0.99) == pytest.approx(0.01, rel=0.011)
    assert low.quantile_s(1.0) == pytest.approx(1.0, rel=0.011)


def test_the_sliding_view_forgets_after_two_spans() -> None:
    now = [0.0]
    digest = SlidingDigest(5.0, lambda: now[0])
    digest.add(1.0)
    now[0] = 6.0
    digest.add(0.1)
    assert digest.quantile_s(1.0) == pytest.approx(1.0, rel=0.011), "the span before still counts"
    now[0] = 11.5
    assert digest.quantile_s(1.0) == pytest.approx(0.1, rel=0.011)
    now[0] = 40.0
    assert digest.quantile_s(1.0) is None
