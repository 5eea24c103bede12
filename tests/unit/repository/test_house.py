"""Rules of the tree that import-linter cannot check: who reads the environment and the clock, and forbidden content."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CORE = sorted((ROOT / "intentrec_core").rglob("*.py")) + sorted((ROOT / "index").rglob("*.py"))
PRODUCT = CORE + sorted((ROOT / "stream").rglob("*.py"))

#: Of the environment only what is no setting of ours is read elsewhere: the search path of a child, Java's home.
_MAY_READ_ENVIRONMENT = {
    "stream/settings.py",
    "stream/ops/children.py",
    "stream/local_kafka/jars.py",
    "stream/demo/environment.py",
}


def names(path: Path) -> Iterator[str]:
    """Every dotted name in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CORE, ids=short)
def test_the_core_reads_neither_environment_nor_wall_clock(path: Path) -> None:
    forbidden = {
        "os.environ",
        "os.getenv",
        "time.time",
        "time.time_ns",
        "datetime.now",
        "datetime.utcnow",
        "date.today",
    }
    assert not forbidden & set(names(path))


def test_settings_alone_reads_the_environment() -> None:
    readers = {short(path) for path in PRODUCT if {"os.environ", "os.getenv"} & set(names(path))}
    assert readers <= _MAY_READ_ENVIRONMENT


@pytest.mark.parametrize("path", PRODUCT, ids=short)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module begins with what it promises"


def test_a_public_class_name_stands_for_one_thing() -> None:
    """Two classes of one name in different packages: a reader who knows one is misled by the other."""
    places: dict[str, list[str]] = {}
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(short(path))
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_the_tree_names_no_machine_and_no_index() -> None:
    # Spelled in parts, so that this file does not contain them.
    hosts = ["pypi" + ".org", "python" + "hosted", "npm" + "js.org", "maven" + ".org", "--index" + "-url"]
    pattern = re.compile("|".join(map(re.escape, hosts)) + r"|/(?:home|Users)/\w+/|(?<![\w.])/(?:work|root)/")
    for path in tracked():
        if path.suffix in {".parquet", ".png", ".svg"} or not path.is_file():
            continue
        found = pattern.search(path.read_text(errors="replace"))
        assert found is None, f"{short(path)}: {found and found[0]}"


def test_a_constant_is_explained_above_it() -> None:
    """As documentation tools read it: ``#:`` speaks of the assignment that follows."""
    assigned = re.compile(r"\s*(self\.)?\w+(, \w+)*(: [^=]+)?( = .*)?")
    for path in tracked():
        if path.suffix == ".py" and path.is_file():
            lines = [*path.read_text().splitlines(), ""]
            for number, (line, below) in enumerate(pairwise(lines), start=1):
                if line.lstrip().startswith("#:") and not below.lstrip().startswith("#:"):
                    assert assigned.fullmatch(below), f"{short(path)}:{number}: of what?"


def test_no_bytes_of_a_pickle_are_ever_loaded() -> None:
    calls = {"pickle.load", "pickle.loads", "torch.load"}
    assert not [short(path) for path in PRODUCT if calls & set(names(path))]
