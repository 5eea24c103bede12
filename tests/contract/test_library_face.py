"""The library's public names, what importing them costs, and the ten lines that its first page promises."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import intentrec_core
from intentrec_core.datasets.movielens import FOLDER, _write_cache
from intentrec_core.datasets.movielens_archive import parse_grouplens

#: The contract: a name is added here on purpose, and none is removed or renamed.
PUBLIC = {
    "Catalogue",
    "ConfigError",
    "DataError",
    "IntentRecError",
    "Item",
    "LiveEncoder",
    "LiveOutcome",
    "LivePlay",
    "LiveUpdate",
    "Model",
    "ModelConfig",
    "MovieLens",
    "Primary",
    "ScoredItem",
    "TrainConfig",
    "fit",
    "load",
    "load_domain",
    "load_movielens",
}
SIGNATURES = {
    "fit": "(plays, catalogue, *, domain, epochs, seed, config, model_config, device, progress, epoch_done)",
    "load": "(folder, *, device)",
    "load_domain": "(name_or_path)",
    "load_movielens": "(cache_dir, *, progress)",
    "LiveEncoder": "(model, cache_bytes, *, kv_dtype)",
    "LiveEncoder.play": "(self, user_id, item_id, *, ts_ms, event_id, duration_s, attributes)",
    "LiveEncoder.play_many": "(self, plays)",
    "LiveEncoder.add_history": "(self, plays)",
    "LiveEncoder.forget": "(self, user_id)",
    "LivePlay": "(*, user_id, item_id, ts_ms, event_id, duration_s, attributes)",
    "LiveUpdate.recommend": "(self, k, *, exclude_watched)",
    "Model.save": "(self, folder)",
}
#: None of them may be loaded by a plain import: together they take seconds.
LARGE = ("torch", "numpy", "pyarrow", "numba", "safetensors", "msgspec")

TEN_LINES = textwrap.dedent(intentrec_core.__doc__.split("save.\n", 1)[1].split("The names below", 1)[0])


def test_the_public_names_are_frozen() -> None:
    assert set(intentrec_core.__all__) == PUBLIC
    assert set(dir(intentrec_core)) >= PUBLIC
    assert all(getattr(intentrec_core, name) is not None for name in PUBLIC)
    assert all(inspect.getdoc(getattr(intentrec_core, name)) for name in PUBLIC)


@pytest.mark.parametrize("path", SIGNATURES)
def test_parameters_are_frozen(path: str) -> None:
    found: object = intentrec_core
    for name in path.split("."):
        found = getattr(found, name)
    parameters = inspect.signature(found).parameters.values()
    shown: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown.append(parameter.name)
    assert f"({', '.join(shown)})" == SIGNATURES[path]


def test_a_name_that_is_not_public_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Fit'; public names: Catalogue, "):
        _ = intentrec_core.Fit


@pytest.mark.parametrize("statement", ["import intentrec_core", "import intentrec_core.errors"])
def test_a_plain_import_loads_no_large_library(statement: str) -> None:
    script = f"{statement}\nimport sys\nfound = {LARGE!r} & sys.modules.keys()\nassert not found, found"
    script = script.replace(repr(LARGE), repr(set(LARGE)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_ten_lines_run_as_they_stand_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 600 ratings in the place of MovieLens-100K's cache: what is tested is the face, not the model."""
    ratings = "".join(f"{n % 20}\t{n * 7 % 50}\t{1 + n % 5}\t{880000000 + 60 * n}\n" for n in range(600))
    flags = ["|".join("1" if flag == 1 + n % 18 else "0" for flag in range(19)) for n in range(50)]  # a genre each
    movies = "".join(f"{n}|Film {n} ({1950 + n})|||x|{flags[n]}\n" for n in range(50))
    _write_cache(
        tmp_path / ".cache" / "intentrec" / FOLDER, parse_grouplens(ratings.encode(), movies.encode()), "a test"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert len(TEN_LINES.strip().splitlines()) == 8
    names: dict[str, object] = {}
    exec(compile(TEN_LINES, "ten lines", "exec"), names)
    said = capsys.readouterr().out
    assert "Primary(head=" in said
    assert said.count("ScoredItem(") == 1
    assert (tmp_path / "model" / "weights.safetensors").is_file()
