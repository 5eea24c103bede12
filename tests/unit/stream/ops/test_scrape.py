"""Reading /metrics back: the demo shows what the instruments hold."""

from __future__ import annotations

from prometheus_client import generate_latest

from stream.local_kafka.ports import free_port
from stream.ops.metrics import Metrics, PlayOutcome
from stream.ops.scrape import is_ready, parse, scrape


def test_totals_and_labels_come_back_as_they_were_counted() -> None:
    metrics = Metrics()
    metrics.plays.labels(PlayOutcome.APPLIED).inc(5)
    metrics.plays.labels(PlayOutcome.DUPLICATE).inc(2)
    metrics.serves("b0123456789ab", 0.0)
    samples = parse(generate_latest(metrics.registry).decode())
    assert samples.total("intentrec_plays_total", outcome="applied") == 5
    assert samples.total("intentrec_plays_total") == 7
    assert samples.by("intentrec_plays_total", "outcome")["duplicate"] == 2
    assert samples.by("intentrec_bundle_info", "bundle") == {"b0123456789ab": 1.0}


def test_what_was_never_counted_is_zero() -> None:
    samples = parse("")
    assert samples.total("intentrec_plays_total") == 0
    assert samples.by("intentrec_plays_total", "outcome") == {}


def test_a_process_that_does_not_answer_is_no_error() -> None:
    port = free_port()
    assert scrape(port) is None
    assert not is_ready(port)
