"""The command line: its help, its output, one-line errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from intentrec_core import errors
from intentrec_core.bundle.contents import load_bundle
from intentrec_core.domain.toml import domain_text, load_domain
from intentrec_core.errors import BrokerError, BundleError, ConfigError, DataError, IntentRecError
from intentrec_core.plays.table import PlayRow, plays_table
from stream.cli import root
from stream.cli.data_source import load_data, load_plays
from stream.gateway.access import Access, Caller
from stream.settings import Settings
from tests.worlds.bundle_files import half_bundle

COMMANDS = (
    "data", "import", "domain", "train", "eval", "broker", "topics", "worker", "trainer", "replay", "simulate", "demo", "bundle",
    "dlq", "state", "forget", "doctor", "explain", "gateway", "token",
)  # fmt: skip
NESTED = (
    ("data", "movielens-100k"),
    ("domain", "init"),
    ("bundle", "build"),
    ("bundle", "list"),
    ("bundle", "inspect"),
    ("bundle", "profile"),
    ("bundle", "verify"),
    ("bundle", "rollback"),
    ("dlq", "list"),
    ("dlq", "show"),
    ("dlq", "redrive"),
    ("state", "show"),
    ("state", "verify"),
)
LEAVES = [(name,) for name in COMMANDS if name not in ("data", "domain", "bundle", "dlq", "state")] + list(NESTED)


def run(*arguments: str) -> int:
    """One command in this process."""
    given = list(arguments)
    return root.run([a for a in given if a != "--debug"], debug="--debug" in given)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTENTREC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INTENTREC_BUNDLE_URL", str(tmp_path / "bundles"))


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in COMMANDS)
    assert "Exit codes" in shown


@pytest.mark.parametrize("command", LEAVES, ids="-".join)
def test_every_command_teaches_by_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Examples" in shown
    assert f"intentrec {' '.join(command)}" in shown


def test_the_shell_completes_commands_and_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What bash asks, once `intentrec --install-completion` has told it how."""
    monkeypatch.setenv("_INTENTREC_COMPLETE", "complete_bash")
    for words, wanted in (("do", ["doctor", "domain"]), ("import --leave", ["--leave-out"])):
        monkeypatch.setenv("COMP_WORDS", f"intentrec {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
        assert run() == 0
        assert capsys.readouterr().out.split() == wanted


def test_every_example_is_accepted_by_the_parser() -> None:
    tree = get_command(root.app)
    shown: list[str] = []
    for command in LEAVES:
        node = tree
        for name in command:
            node = node.commands[name]
        shown += [line.strip() for line in (node.epilog or "").splitlines() if "intentrec " in line]
    assert len(shown) > 20
    for line in shown:
        words = line.split("intentrec ", 1)[1].split("  ")[0].split("&&")[0].split()
        assert run(*words, "--help") == 0, line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("train", "--data", "nowhere"),
            2,
            "allowed: movielens-100k, movietweetings, beauty, kuairand-pure, or a folder",
        ),
        (("replay", "--speed", "1", "--rate", "2"), 2, "speed and rate are both given"),
        (("topics", "--broker", "nohost"), 2, "HOST:PORT"),
        (("worker", "--metrics-port", "99999"), 2, "metrics_port"),
        (("simulate", "--out", "x"), 2, "--out needs --plays"),
        (("bundle", "build", "nowhere"), 3, "nowhere is no saved model"),
        (("bundle", "verify", "latest"), 2, "no bundle at"),
        (("bundle", "inspect", "b0123456789ab"), 4, "missing_file"),
        (("bundle", "inspect", "../../etc"), 4, "is not a bundle version"),
        (("dlq", "show", "3"), 2, "PARTITION:OFFSET"),
        (("dlq", "redrive", "--from", "3-7"), 2, "PARTITION:OFFSET"),
        (("dlq", "list", "--broker", "127.0.0.1:9"), 6, "127.0.0.1:9"),
        (("state", "verify", "--broker", "127.0.0.1:9"), 6, "127.0.0.1:9"),
        (("bundle", "rollback", "b01", "--broker", "127.0.0.1:9"), 6, "127.0.0.1:9"),
        (("eval", "--bundle", "b01"), 2, "no bundle at"),
        (("eval", "--bundle", "b01", "--own-items"), 2, "--own-items is for training"),
        (("eval", "--bundle", "b01", "--kv-heads", "1"), 2, "--kv-heads is for training"),
        (("eval", "--bundle", "b01", "--no-own-items"), 2, "--own-items is for training"),
        (("eval", "--bundle", "b01", "--epochs", "3"), 2, "--epochs is for training"),
        (("forget", "x" * 300, "--yes"), 2, "allowed: 1 to 256"),
        (("forget", "a\\", "--escaped", "--yes"), 2, "a JSON string without its quotes"),
        (("forget", "\\ud83d", "--escaped", "--yes"), 2, "a JSON string without its quotes"),
        (("state", "show", "\udcff"), 2, "is not UTF-8"),
        (("topics", "--broker", "127.0.0.1:9"), 6, "127.0.0.1:9"),
        (("broker", "--nodes", "3"), 2, "the embedded broker is one node"),
        (("broker", "--engine", "kafka", "--nodes", "2"), 6, "allowed: 1, 3"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_an_error_is_one_line_with_the_remedy_and_its_exit_code(
    arguments: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("intentrec: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_a_wrong_option_is_a_usage_error() -> None:
    assert run("demo", "--nonsense") == 2


def test_an_unknown_setting_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTENTREC_BROKR", "x")
    assert run("bundle", "list") == 2
    assert "INTENTREC_BROKR" in capsys.readouterr().err


def test_a_token_is_all_that_is_printed_and_a_gateway_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = str(tmp_path / "gateway.key")
    assert run("token", "u7", "--key-file", key, "--make-key") == 0
    printed = capsys.readouterr()
    assert "a new secret is in" in printed.err
    assert Access(Settings(gateway_key_file=Path(key))).caller(f"Bearer {printed.out.strip()}") == Caller("u7")
    assert run("token", "--make-key", "--key-file", key) == 0
    assert capsys.readouterr().out == ""
    assert run("token", "--operator", "--key-file", key) == 0
    caller = Access(Settings(gateway_key_file=Path(key))).caller(f"Bearer {capsys.readouterr().out.strip()}")
    assert caller.is_operator
    for words in (["--key-file", key], ["u7", "--make-key"], ["u7"]):
        assert run("token", *words) == 2
        assert "key" in (said := capsys.readouterr().err) or "give USER" in said


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--debug", "--data", "nowhere") == 2
    assert "Traceback" in capsys.readouterr().err
    assert run("train", "--data", "nowhere") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_internal_error_is_named_and_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("oh")

    monkeypatch.setattr("stream.cli.data_source.load_data", broken)
    assert run("replay") == root.UNEXPECTED
    error = capsys.readouterr().err
    assert "internal error: KeyError" in error
    assert "report the output" in error


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stream.cli.data_source.load_data", interrupted)
    assert run("replay") == root.INTERRUPTED


def test_every_error_has_an_exit_code_that_the_help_explains() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IntentRecError)]
    explained = {int(part.split()[0]) for part in root.EXIT_CODES.replace("\n", " ").split("·")}
    assert {kind.exit_code for kind in kinds} <= explained


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    done = subprocess.run(
        f"{sys.executable} -m stream.cli demo --help | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_help_needs_no_torch() -> None:
    """It would take seconds to import."""
    code = "import sys, stream.cli.root as r; r.run(['demo', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("command", [["train", "--announce"], ["demo", "--headless"]], ids=" ".join)
def test_without_torch_nothing_is_downloaded_and_no_broker_is_waited_for(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentrec_core.device.has_torch", lambda: False)
    monkeypatch.chdir(tmp_path)
    given = ["--cache-dir", str(tmp_path / "cache"), "--broker", "127.0.0.1:1"]
    assert run(*command, *given) == ConfigError.exit_code
    assert "torch" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_simulated_world_in_a_folder_is_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "world"
    assert (
        run("simulate", "--out", str(folder), "--plays", "300", "--users", "20", "--items", "200", "--seed", "7") == 0
    )
    assert "--domain video" in capsys.readouterr().out
    data_set = load_data(str(folder), tmp_path, lambda *_: None, load_domain("video"))
    assert data_set.plays.num_rows == 300
    assert (folder / "truth.parquet").is_file()
    assert data_set.earliest(0.5).num_rows + data_set.rest(0.5).num_rows == 300
    assert all(data_set.catalogue.get(item) for item in data_set.plays.column("item_id").to_pylist())


def test_a_number_that_a_worker_would_refuse_is_named_with_its_row_before_anything_is_trained_or_sent(
    tmp_path: Path,
) -> None:
    now_ms = time.time_ns() // 1_000_000
    rows = [
        PlayRow(f"e{row}", "u", "i", now_ms - row, context={"episode": episode})  # the newest play first
        for row, episode in enumerate(("1", None, "abc", "2"))
    ]
    pq.write_table(plays_table(rows), tmp_path / "plays.parquet")
    (tmp_path / "items.jsonl").write_text('{"item_id": "i"}')
    said = r"plays\.parquet: plays: row 2, context episode: 'abc' is not a finite number; allowed: finite numbers"
    for load in (load_data, load_plays):
        with pytest.raises(DataError, match=said):
            load(str(tmp_path), tmp_path, lambda *_: None, load_domain("video"))


def test_train_prints_the_data_profile_and_refuses_an_intent_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain, world = tmp_path / "misspelt.toml", str(tmp_path / "world")
    domain.write_text(domain_text("video").replace('key = "genres"', 'key = "gneres"'))
    assert run("simulate", "--out", world, "--plays", "300", "--users", "20", "--items", "200") == 0
    capsys.readouterr()
    assert run("train", "--data", world, "--domain", str(domain)) == DataError.exit_code
    shown = capsys.readouterr()
    known = {
        line[8:24].strip(): line.split("known at")[1].split()[0]
        for line in shown.out.splitlines()
        if "known at" in line
    }
    assert known["genre"] == "0.0%"
    assert {known[name] for name in ("action", "format", "language", "contact")} == {"100.0%"}
    assert "filter  regions" in shown.out
    (line,) = [line for line in shown.err.splitlines() if line.startswith("intentrec: ")]
    assert line.startswith(
        f"intentrec: domain {domain}: intent genre has no known label at any play: no item that was played has the attribute "
        "'gneres': check the key; the catalogue's attributes: available, episodes, format, genres, language,"
    )


def test_a_store_or_a_broker_that_cannot_take_the_bundle_is_found_before_the_plays_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    full = tmp_path / "file" / "store"
    assert run("train", "--data", "nowhere", "--bundles", str(full)) == BundleError.exit_code
    assert f"{full} takes no files: NotADirectoryError" in capsys.readouterr().err
    away = ("--announce", "--broker", "127.0.0.1:1")
    assert run("train", "--data", "nowhere", *away) == BrokerError.exit_code
    assert not (tmp_path / "bundles").exists(), "what was tried leaves nothing behind"


def test_an_index_that_the_plays_are_too_few_for_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = str(tmp_path / "world")
    assert run("simulate", "--out", world, "--plays", "300", "--users", "20", "--items", "200") == 0
    capsys.readouterr()
    tiny = ("--epochs", "1", "--width", "16", "--layers", "1", "--device", "cpu", "--no-references")
    assert run("train", "--data", world, "--domain", "video", *tiny, "--index", "pruned") == ConfigError.exit_code
    shown = capsys.readouterr()
    assert "known at" not in shown.out, "the profile comes before the first epoch"
    assert "intentrec: index pruned needs" in shown.err


def test_train_reads_prices_however_a_table_holds_them_and_names_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DECIMAL prices, texts of numbers, 0 and 1 for truth values: the bundle's items and labels are those of plain numbers."""
    world = tmp_path / "world"
    assert (
        run("simulate", "--domain", "shop", "--out", str(world), "--plays", "600", "--users", "20", "--items", "80")
        == 0
    )
    small = (
        "--data",
        str(world),
        "--domain",
        "shop",
        "--epochs",
        "1",
        "--width",
        "16",
        "--layers",
        "1",
        "--device",
        "cpu",
    )
    labels = []
    for kind in ("plain", "foreign"):
        if kind == "foreign":
            _spell_otherwise(world / "items.parquet")
        monkeypatch.setenv("INTENTREC_BUNDLE_URL", str(tmp_path / kind))
        half_bundle(tmp_path / kind, age_s=100_000)  # left by a publisher that was killed a day ago
        capsys.readouterr()
        assert run("train", *small, "--no-references") == 0
        shown = capsys.readouterr()
        assert "intent  price_band       known at 100.0% of plays" in shown.out
        assert ("warning: row 0, item '" in shown.err and "attribute extra: a nested value" in shown.err) == (
            kind == "foreign"
        )
        (path,) = (tmp_path / kind).glob("b*")
        loaded = load_bundle(path)
        labels.append(loaded.vectors.labels | {"open": loaded.item_table.filter_column("in_stock")})
        profile = loaded.profile()
        assert profile is not None
        assert profile.num_plays == 420
        assert profile.field("price_band").num_unread == 0
    plain, foreign = labels
    for name, values in plain.items():
        np.testing.assert_array_equal(values, foreign[name])


def _spell_otherwise(items: Path) -> None:
    """The same catalogue as another writer would have it."""
    table = pq.read_table(items)
    for name, column in {
        "price": table.column("price").cast(pa.decimal128(12, 2), safe=False),
        "in_stock": table.column("in_stock").cast(pa.int8()),
        "on_offer": pc.if_else(table.column("on_offer"), "1", "0"),
        "extra": pa.array([{"x": [row]} for row in range(table.num_rows)]),
    }.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    pq.write_table(table, items)


@pytest.mark.slow
def test_from_plays_to_a_bundle_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, store = tmp_path / "world", tmp_path / "bundles"
    assert run("simulate", "--out", str(world), "--plays", "1500", "--users", "40", "--items", "150") == 0
    small = (
        "--data",
        str(world),
        "--domain",
        "video",
        "--epochs",
        "1",
        "--width",
        "16",
        "--layers",
        "1",
        "--device",
        "cpu",
    )
    assert run("train", *small) == 0
    shown = capsys.readouterr().out
    for reference in ("IntentRec", "without intent stage", "popular in the last 7 days", "Markov"):
        assert reference in shown
    assert run("train", *small, "--if-missing") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run("bundle", "list") == 0
    version = next(word for word in capsys.readouterr().out.split() if word.startswith("b") and len(word) == 13)
    assert load_bundle(store / version).weights.config.own_items
    assert run("bundle", "inspect", version) == 0
    assert "weights.safetensors" in capsys.readouterr().out
    assert run("bundle", "profile", version) == 0
    assert "intent  genre            known at 100.0% of plays" in capsys.readouterr().out
    assert run("bundle", "verify", "latest") == 0
    assert "sound" in capsys.readouterr().out
    report = tmp_path / "report.html"
    assert run("eval", "--bundle", "latest", "--data", str(world), "--json", "--report", str(report)) == 0
    found = json.loads(capsys.readouterr().out.rstrip().split("\n")[-1])
    assert [row["kind"] for row in found["rows"]] == ["ours", *["counts"] * 8]
    assert f"{found['rows'][0]['metrics']['mrr']['value']:.4f}" in report.read_text("utf-8")
    weights = store / version / "weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    assert run("bundle", "verify", version) == 4
    assert "checksum" in capsys.readouterr().err


def test_an_erasure_of_a_member_without_a_history_claims_no_tombstones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def sent(*_: object) -> dict[int, int]:
        return {3: 7}

    async def followed(*_: object) -> bool:
        return True

    monkeypatch.setattr("stream.kafka.send_erasure.send_forget", sent)
    monkeypatch.setattr("stream.kafka.send_erasure.is_followed", followed)
    assert run("forget", "nobody", "--yes", "--wait", "1") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "plays-3 offset 7" in said
    assert said.endswith("no play that this member made before the request; plays after it begin a new history")


DROPPED = """
import asyncio, gc, logging, sys
from aiokafka.errors import ProducerFenced
from intentrec_core.errors import BrokerError
from stream.cli.root import set_up_logs

set_up_logs(debug=sys.argv[1] == "debug")

async def drop():
    for error in (ProducerFenced(), BrokerError("the producer was closed"), ConnectionResetError(), KeyError("ours")):
        asyncio.get_running_loop().create_future().set_exception(error)
    gc.collect()

asyncio.run(drop())
"""


@pytest.mark.parametrize(("mode", "num_reported"), [("plain", 1), ("debug", 4)])
def test_failures_of_the_broker_that_a_client_drops_are_not_reported_and_other_errors_are(
    mode: str, num_reported: int
) -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED, mode], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.count("Future exception was never retrieved") == num_reported
    assert "KeyError: 'ours'" in done.stderr
