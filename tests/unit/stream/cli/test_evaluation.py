"""``intentrec eval`` by each protocol, on a few plays: what it states, what it chooses, and its report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.cli import root
from tests.bench.quality.data_sets import world_plays

EVIL = "<script>alert(1)</script>"
SMALL = ("--domain", "video", "--width", "8", "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of plays and items, every one of which has a script for its title."""
    folder = tmp_path_factory.mktemp("world")
    plays, catalogue = world_plays(700, 25, 80)
    items = catalogue.to_table()
    titles = pa.array([f"{EVIL} {number}" for number in range(items.num_rows)])
    pq.write_table(plays, folder / "plays.parquet")
    pq.write_table(items.set_column(items.schema.get_field_index("title"), "title", titles), folder / "items.parquet")
    return folder


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTENTREC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INTENTREC_BUNDLE_URL", str(tmp_path / "bundles"))


def results(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON and the text that the command prints."""
    assert root.run(["eval", *arguments, *SMALL]) == 0
    shown = capsys.readouterr().out
    *text, last = shown.rstrip().split("\n")
    return json.loads(last), "\n".join(text)


def test_temporal_with_a_report(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    given = ("--data", str(world), "--epochs", "2", "--against", "sasrec", "--against", "no-intent", "--seeds", "2")
    found, text = results(capsys, *given, "--report", str(report))
    assert found["protocol"] == "temporal, last 30%"
    assert found["test"]["first_ms"] > found["validation"]["last_ms"]
    assert found["hides_played"] is False, "in this domain members play items again"
    assert "nothing is hidden" in text
    assert f"all {found['items_ranked']:,} items" in text
    names = [row["name"] for row in found["rows"]]
    assert names[:3] == ["IntentRec", "SASRec", "without intent stage"]
    assert "Markov, last 5, online" in names
    ours = found["rows"][0]
    assert [run["seed"] for run in ours["seeds"]] == [0, 1]
    for run in ours["seeds"]:
        values = [point["value"] for point in run["curve"]]
        assert run["epochs"] == 1 + values.index(max(values))
    assert [head["name"] for head in ours["heads"]] == ["action", "genre", "format", "release_age"]
    for row in found["rows"]:
        assert {"hr@5", "ndcg@20", "mrr", "coverage@10", "diversity@10", "popularity@10"} <= row["metrics"].keys()
        if row["kind"] == "counts" and row["name"].startswith("Markov"):
            assert row["choice"].startswith("NDCG@10 on validation")
    page = report.read_text("utf-8")
    assert f"{ours['metrics']['ndcg@10']['value']:.4f}" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert not re.search(r"https?:|src=|url\(", page)


def test_leave_one_out(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--data", str(world), "--protocol", "leave-one-out", "--epochs", "1", "--against", "none", "--hide-played")
    found, text = results(capsys, *given)
    assert found["protocol"] == "leave-one-out"
    assert found["test"]["plays"] == found["test"]["members"], "each member's last play"
    assert found["hides_played"] is True
    assert "every item that the member has played before is hidden: its score is −∞" in text
    assert "with hidden items scored 0: NDCG@10" in text
    assert not [row["name"] for row in found["rows"] if "online" in row["name"]]


def test_a_stream(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (
        "--data",
        str(world),
        "--protocol",
        "stream",
        "--refresh-plays",
        "80",
        "--epochs",
        "1",
        "--against",
        "none",
    )
    found, text = results(capsys, *given, "--unknown-time")
    assert found["protocol"] == "streaming, refresh every 80 plays, target's time unknown"
    assert found["knows_time"] is False
    assert "2 refreshes of 3 epochs each" in text
    assert "freshness" not in found


def test_a_stream_by_how_often_it_is_refreshed(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    given = (
        "--data",
        str(world),
        "--protocol",
        "stream",
        "--epochs",
        "1",
        "--against",
        "none",
        "--report",
        str(report),
    )
    found, text = results(capsys, *given, "--refresh-plays", "80", "--freshness", "0", "--freshness", "40")
    fresh = found["freshness"]
    assert fresh["places"] == ["every 40 plays", "every 80 plays", "never"]
    main = {row["name"]: row["metrics"]["ndcg@10"]["value"] for row in found["rows"]}
    assert {name: values[1] for name, values in fresh["ndcg@10"].items()} == pytest.approx(main), "as it was asked"
    frozen = fresh["ndcg@10"]["Markov, last 5 plays"]
    online = fresh["ndcg@10"]["Markov, last 5, online"]
    assert len(set(online)) == 1, "it needs no refresh"
    assert len(set(frozen)) == 3, "what it has counted is that of the last refresh"
    assert "every 40 plays every 80 plays" in text
    assert "What freshness is worth" in report.read_text("utf-8")


def test_without_a_validation_nothing_is_chosen(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--data", str(world), "--no-validation", "--epochs", "2", "--against", "none")
    found, text = results(capsys, *given)
    assert found["validation"] is None
    assert "nothing was chosen on a validation" in text
    assert found["rows"][0]["seeds"][0]["epochs"] == 2
    assert [point["value"] for point in found["rows"][0]["seeds"][0]["curve"]] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--against", "bert"), "model 'bert' is none to compare with; allowed: no-intent, multi-task, sasrec, gru"),
        (("--against", "none", "--against", "gru"), "--against none with other models"),
        (("--bundle", "latest", "--protocol", "stream"), "--protocol is for training"),
        (("--bundle", "latest", "--seeds", "2"), "--seeds is for training"),
        (("--bundle", "latest", "--freshness", "0"), "--freshness is for training"),
        (("--freshness", "0"), "give --protocol stream too"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    world: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert root.run(["eval", "--data", str(world), *arguments, *SMALL[:2]]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("file", "message"), [("absent/report.html", "there is no folder"), ("", "is a folder")])
def test_a_report_without_a_place_is_refused_before_anything_is_trained(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, message: str
) -> None:
    assert root.run(["eval", "--data", str(world), *SMALL, "--report", str(tmp_path / file)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
