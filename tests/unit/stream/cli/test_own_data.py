"""The way from files of others to a model: `import`, `domain init`, and what `train` makes of both."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from intentrec_core.domain.toml import load_domain
from intentrec_core.features.catalogue import Catalogue
from stream.cli import root
from stream.cli.data_source import load_any_folder, load_data
from tests.worlds.retail_events import write_events, write_items


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    write_events(events)
    write_items(items)
    return events, items


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command printed, on standard output and error."""
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_folder_and_a_domain_from_two_files(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, items = files
    with events.open("a") as file:
        file.write("oops\n")
    folder, domain_file = tmp_path / "my", tmp_path / "my.toml"
    assert root.run(["import", str(events), str(items), "--out", str(folder)]) == 0
    text = shown(capsys)
    assert "visitorid" in text
    assert "times: milliseconds (ms) since 1970" in text
    assert "attribute, a list split at |" in text
    assert "1 rows rejected" in text
    rejected = [json.loads(line) for line in (folder / "plays.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == ["oops"]
    assert not (folder / "items.rejected.jsonl").exists()

    assert root.run(["domain", "init", str(folder), "--out", str(domain_file)]) == 0
    text = shown(capsys)
    assert "intent category" in text
    domain = load_domain(domain_file)
    assert domain.name == "my"
    assert {"action", "category"} <= {head.name for head in domain.heads}
    data = load_data(str(folder), tmp_path, lambda *_: None, domain)
    assert data.plays.num_rows == len(events.read_text().splitlines()) - 2
    item = data.catalogue.get("1")
    assert item is not None
    assert item.title == "Thing 1; the books one"
    assert item.attributes["in_stock"] is True


def test_a_dry_run_writes_nothing(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my"
    assert root.run(["import", str(files[0]), "--out", str(folder), "--dry-run", "--leave-out", "transactionid"]) == 0
    assert "left out" in shown(capsys)
    assert not folder.exists()


def test_what_is_there_is_replaced_only_by_force(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, domain_file = tmp_path / "my", tmp_path / "my.toml"
    command = ["import", str(files[0]), "--out", str(folder)]
    assert root.run(command) == 0
    assert root.run(command) == 2
    assert "give --force to replace it" in capsys.readouterr().err
    assert root.run([*command, "--force"]) == 0
    init = ["domain", "init", str(folder), "--out", str(domain_file)]
    assert root.run(init) == 0
    assert root.run(init) == 2
    assert "give --force to replace it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["items.parquet", "items.jsonl"])
def test_items_that_are_there_are_kept_by_an_import_of_plays_alone(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "my"
    kept = Catalogue.from_table(pa.table({"item_id": ["1"], "title": ["By hand"]}))
    folder.mkdir()
    if name == "items.parquet":
        kept.save(folder / name)
    else:
        (folder / name).write_text('{"item_id": "1", "title": "By hand"}\n')
    assert root.run(["import", str(files[0]), "--out", str(folder)]) == 0
    assert f"{name} is kept; delete it" in shown(capsys)
    assert root.run(["import", str(files[0]), "--out", str(folder), "--force"]) == 0
    assert load_any_folder(folder).catalogue == kept
    (folder / "plays.parquet").unlink()
    assert root.run(["import", *map(str, files), "--out", str(folder)]) == 2
    assert f"{name} is there already: give --force to replace it" in capsys.readouterr().err
    assert root.run(["import", *map(str, files), "--out", str(folder), "--force"]) == 0
    assert len(load_any_folder(folder).catalogue) > 1


def test_plays_are_replaced_only_together_with_their_items(files: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "my"
    assert root.run(["import", *map(str, files), "--out", str(folder)]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    files[0].write_text("timestamp,visitorid,event,itemid\n1433221332117,1,view,3\noops\n")
    files[1].write_text("itemid;name\n;nothing\n")
    assert root.run(["import", *map(str, files), "--out", str(folder), "--force"]) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (["--user", "visitor"], 2, "--user visitor: events.csv has no such column"),
        (["--separator", "::"], 2, "--separator '::'; allowed: one character"),
        (["--encoding", "klingon"], 2, "--encoding klingon; allowed: an encoding that Python knows"),
        (["--title", "name"], 2, "--item-id, --title and --list are of ITEMS, which was not given"),
        (["--time", "event"], 3, "no time can be read: event is 'view'"),
        (["--time-format", "no"], 2, "--time-format 'no'; allowed: a format such as"),
        (
            ["--duration-unit", "ms"],
            2,
            "--duration-unit: events.csv has no column of durations: name it with --duration",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    what: str,
) -> None:
    if options == ["--time", "event"]:
        options = [*options, "--action", "timestamp"]
        files[0].write_text("timestamp,visitorid,event,itemid\n1433221332117,1,view,3\n")
    assert root.run(["import", str(files[0]), "--out", str(tmp_path / "my"), *options]) == code
    error = capsys.readouterr().err
    assert what in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "my").exists()


def test_a_column_of_the_item_is_not_lost_beside_items_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plays, items, folder = tmp_path / "plays.csv", tmp_path / "items.csv", tmp_path / "my"
    plays.write_text("user,item,timestamp,price,watch_time\nu,1,1433221332117,5.5,1500\nv,2,1433221332118,6.5,2500\n")
    items.write_text("itemid,name\n1,One\n")
    command = ["import", str(plays), "--out", str(folder), "--of-item", "price", "--force"]
    assert root.run([*command[:2], str(items), *command[2:]]) == 2
    assert f"and {items} is given: add price to it, or import without it" in capsys.readouterr().err
    assert root.run([*command, "--duration-unit", "ms"]) == 0
    text = shown(capsys)
    assert [line.split()[:5] for line in text.splitlines() if line.startswith("price")] == [
        ["price", "attribute", "of", "the", "item"]
    ]
    assert "the same at all plays" not in text
    assert "durations: milliseconds, given" in text
    data = load_any_folder(folder)
    assert [item.attributes for item in data.catalogue] == [{"price": 5.5}, {"price": 6.5}]
    assert data.plays.column("duration_s").to_pylist() == [1.5, 2.5]
    assert root.run(command) == 2
    assert "items.parquet is kept: add price to it, or delete it" in capsys.readouterr().err


def test_a_domain_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.run(["domain", "init", str(tmp_path / "none"), "--out", str(tmp_path / "my.toml")]) == 2
    assert "no such folder: write one with `intentrec import`" in capsys.readouterr().err
