"""Alerts and dashboard name only metrics and labels that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.ops.metrics import LATENCY_BUCKETS_S, Metrics
from stream.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
ALERTS = [
    alert
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for alert in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/intentrec.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
_METRIC = re.compile(r"\b(intentrec_[a-z0-9_]+)(?:\{([^}]*)\})?")


def known() -> dict[str, set[str]]:
    """Every name that can be queried, with its labels."""
    names: dict[str, set[str]] = {}
    for family in Metrics().registry.collect():
        if not family.name.startswith("intentrec_"):
            continue
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        labels = {label for sample in family.samples for label in sample.labels}
        for suffix in suffixes:
            names[family.name + suffix] = labels
    return names


@pytest.mark.parametrize("query", [*QUERIES, *(alert["expr"] for alert in ALERTS)])
def test_every_metric_in_a_query_exists(query: str) -> None:
    names = known()
    for name, selector in _METRIC.findall(query):
        assert name in names, name
        for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector):
            # Series by bundle, head, filter and gate reason begin with the first bundle: their labels show no sooner.
            assert label in names[name] | {"bundle", "filter", "head", "instance", "reason"}, (name, label)


@pytest.mark.parametrize("query", [*QUERIES, *(alert["expr"] for alert in ALERTS)])
def test_brackets_of_a_query_are_balanced(query: str) -> None:
    for opening, closing in ("()", "[]", "{}"):
        assert query.count(opening) == query.count(closing)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_prometheus_takes_the_rules_and_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    queries = tmp_path / "queries.yml"
    queries.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    files = [str(ROOT / "deploy/prometheus/alerts.yml"), str(queries)]
    done = subprocess.run(["promtool", "check", "rules", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def check_alert(folder: Path, name: str, series: dict[str, str], firing: dict[str, list[dict[str, str]]]) -> None:
    """Holds an alert to ``firing``: at each time, the labels that it fires with, its own left out. ``series``: values by
    series, one a minute.
    """
    (rule,) = (rule for rule in ALERTS if rule["alert"] == name)
    expected = [
        {
            "eval_time": time,
            "alertname": name,
            "exp_alerts": [
                {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": rule["annotations"]}
                for labels in alerts
            ],
        }
        for time, alerts in firing.items()
    ]
    case = {
        "interval": "1m",
        "input_series": [{"series": selector, "values": values} for selector, values in series.items()],
        "alert_rule_test": expected,
    }
    written = folder / "test.yml"
    written.write_text(
        yaml.safe_dump(
            {"rule_files": [str(ROOT / "deploy/prometheus/alerts.yml")], "evaluation_interval": "1m", "tests": [case]}
        )
    )
    done = subprocess.run(["promtool", "test", "rules", str(written)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_a_worker_that_does_not_know_the_items_topic_raises_an_alert(tmp_path: Path) -> None:
    """A worker that knows it, one that stops after two minutes, one that does not follow it, one that is always a minute late."""
    read = {"up to date": "0+60x20", "stuck": "0 60 120x18", "other source": "0x20", "late": "0 0+60x19"}
    series = {
        f'intentrec_catalogue_read_timestamp_seconds{{instance="{name}"}}': values for name, values in read.items()
    }
    stuck = [{"instance": "stuck"}]
    check_alert(tmp_path, "IntentRecCatalogueBehind", series, {"7m": [], "9m": stuck, "15m": stuck})


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_one_worker_without_items_raises_an_alert_although_others_have_them(tmp_path: Path) -> None:
    """As after a restart while the topic is there and empty. A trainer has neither items nor a bundle that hides them."""
    items = {"empty": (0, 1700), "full": (1700, 0), "some": (1690, 10), "other source": (0, 0)}
    series = {
        f'intentrec_catalogue_{name}{{instance="{instance}"}}': f"{value}+0x20"
        for instance, values in items.items()
        for name, value in zip(("items", "hidden_items"), values, strict=True)
    }
    empty = [{"instance": "empty"}]
    check_alert(tmp_path, "IntentRecCatalogueEmpty", series, {"0m": [], "2m": empty, "15m": empty})


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
@pytest.mark.parametrize("reference", ["popular", "markov"])
@pytest.mark.parametrize(
    ("ours", "theirs", "fires"), [(6.0, 9.0, True), (0.0, 1.0, True), (6.0, 6.2, False), (9.0, 6.0, False)]
)
def test_an_alert_says_when_a_reference_is_better_for_an_hour(
    reference: str, ours: float, theirs: float, fires: bool, tmp_path: Path
) -> None:
    """By more than chance, hits a minute; not in the first half hour, and no more once another bundle serves."""
    rates = {"hits": ours, "popular_hits": ours, "markov_hits": ours, f"{reference}_hits": theirs}
    labels = 'bundle="b1",instance="worker:9464"'
    series = {f"intentrec_judged_{name}_total{{{labels}}}": f"0+{rate}x120" for name, rate in rates.items()}
    series[f"intentrec_bundle_info{{{labels}}}"] = "1x69 _x50"  # rolled back after 70 minutes
    firing = {"5m": [], "25m": [], "60m": [{}] if fires else [], "78m": []}
    check_alert(tmp_path, f"IntentRecWorseThan{reference.capitalize()}", series, firing)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
@pytest.mark.parametrize(("worst", "fires"), [("0.979", True), ("0.981", False), ("NaN", False)])
def test_an_alert_says_when_the_index_of_one_worker_misses_items(worst: str, fires: bool, tmp_path: Path) -> None:
    """A worker that has not probed enough says nothing, and hides no other worker."""
    ratios = {"worst": worst, "good": "1", "new": "NaN"}
    series = {f'intentrec_index_recall_ratio{{instance="{name}"}}': f"{ratio}+0x60" for name, ratio in ratios.items()}
    check_alert(tmp_path, "IntentRecIndexMisses", series, {"29m": [], "40m": [{}] if fires else []})


def test_the_alert_on_latency_is_above_what_a_healthy_worker_was_measured_at() -> None:
    """At half of its capacity on 2 shared cores, and with the commit interval on top, for which exactly_once waits."""
    (expr,) = (alert["expr"] for alert in ALERTS if alert["alert"] == "IntentRecSlow")
    threshold_s = float(expr.rpartition(">")[2])
    rows = map(json.loads, (ROOT / "tests/bench/history/latency.jsonl").read_text().splitlines())
    measured_s = [row["worker_p99_ms"] / 1000 for row in rows if "worker_p99_ms" in row]
    assert len(measured_s) > 5
    assert threshold_s >= 2 * max(measured_s)
    assert threshold_s >= max(measured_s) + Settings(delivery="exactly_once").commit_interval_s
    assert threshold_s in LATENCY_BUCKETS_S, "between two buckets a quantile is a guess"
    assert threshold_s < max(LATENCY_BUCKETS_S) / 10


def test_every_alert_says_what_members_notice_and_what_to_do() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS) > 8
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert set(alert["annotations"]) == {"summary", "impact", "action"}


def test_every_panel_has_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_shows_flow_quality_state_and_weights() -> None:
    rows = [panel["title"].split(":")[0] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Flow", "Quality", "State", "Weights"]
