"""The benches of worker and latency run from end to end; at this size their figures mean nothing."""

from __future__ import annotations

import pytest

from tests.bench import bench_latency, bench_worker
from tests.bench.harness import BenchOptions, Figures


def numbers(figures: Figures, *names: str) -> list[float]:
    return [value for name in names if isinstance(value := figures[name], int | float)]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_worker_is_set_against_its_parts_and_a_plain_agent() -> None:
    only = ("worker", "two_workers", "stages", "passthrough", "raw", "faust")
    figures = bench_worker.measure(BenchOptions(quick=True, only=only))
    ratios = numbers(figures, "worker_over_bound", "worker_over_plain_faust", "passthrough_over_raw")
    assert len(ratios) == 3
    assert all(ratio > 0 for ratio in ratios)
    assert "two_workers_per_s" in figures
    assert "quix_per_s" not in figures


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_latency_is_measured_at_rest_and_through_a_swap() -> None:
    figures = bench_latency.measure(BenchOptions(quick=True))
    p50, p99 = numbers(figures, "worker_p50_ms", "worker_p99_ms")
    assert 0 < p50 <= p99
    ratios = numbers(figures, "p99_over_passthrough", "p99_over_p50", "p99_swap_over_steady")
    assert len(ratios) == 3
    assert all(ratio > 0 for ratio in ratios)
