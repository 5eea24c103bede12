"""Every mutant still applies to the source as it is: one that does not proves nothing any more. They run by `make mutants`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants import __main__ as mutants
from tests.mutants.__main__ import MUTANTS, ROOT
from tests.mutants.mutant import DoesNotApply, Edit, Mutant
from tests.rigs.outcome_log import OutcomeLog


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_and_has_its_tests(mutant: Mutant) -> None:
    changed = mutant.apply(ROOT)
    assert all(path.read_text() != source for path, source in changed.items())
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert name in (ROOT / path).read_text()


def test_names_are_told_apart() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("old", ["gone", "twice"])
def test_a_mutant_that_does_not_apply_says_so(tmp_path: Path, old: str) -> None:
    (tmp_path / "a.py").write_text("twice = 1\ntwice = 2\n")
    with pytest.raises(DoesNotApply, match="not once"):
        Mutant("m", (Edit("a.py", old, "x"),), ()).apply(tmp_path)


def fake(name: str, new: str) -> Mutant:
    return Mutant(name, (Edit("product.py", "answer = 42", f"answer = {new}"),), ("test_product.py",))


CAUGHT, SURVIVOR, GONE = (
    fake("caught", "43"),
    fake("survivor", "42.0"),
    Mutant("gone", (Edit("product.py", "x", "y"),), ()),
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with one source and one test; the catalogue are the fake mutants."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "product.py").write_text("answer = 42\n")
    (root / "test_product.py").write_text("from product import answer\n\ndef test_it():\n    assert answer == 42\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for name, value in (
        ("ROOT", root),
        ("STATE", root / ".state" / "mutants.jsonl"),
        ("MUTANTS", (CAUGHT, SURVIVOR, GONE)),
    ):
        monkeypatch.setattr(mutants, name, value)
    return root


def test_every_mutant_is_told_of_and_only_what_is_caught_is_well(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutants.main([]) == 1
    said, errors = capsys.readouterr()
    assert "caught   " in said
    assert "test_product.py::test_it" in said
    assert "1 of 3 mutants caught, 2 not caught, 0 not run" in said
    assert "--- survivor\nSURVIVED" in errors
    assert "--- gone\ngone: 0 times in product.py" in errors
    assert mutants.main(["caught"]) == 0


def without_pytest(tree: Path, tests: Sequence[str], deadline_s: float) -> tuple[int, str, float]:
    """What pytest says of the tree's one test, at once."""
    product: dict[str, object] = {}
    exec((tree / "product.py").read_text(), product)
    return (0, "", 0.1) if product["answer"] == 42 else (1, "FAILED test_product.py::test_it - assert", 0.1)


def test_a_run_goes_on_where_it_was_cut_off(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["--part", "1/3"], without_pytest) == 1
    assert "1 of 3 mutants caught, 0 not caught, 2 not run" in capsys.readouterr().out
    with (tree / ".state" / "mutants.jsonl").open("a") as file:
        file.write('{"name": "survi')  # killed while it wrote
    mutants.main(["--resume"], without_pytest)
    said = capsys.readouterr().out
    assert "2 of 3 mutants to be run" in said
    assert "1 of 3 mutants caught, 2 not caught, 0 not run" in said
    mutants.main(["--resume"], without_pytest)
    assert "0 of 3 mutants to be run" in capsys.readouterr().out


def test_a_mutant_is_run_again_when_its_source_or_its_tests_have_changed(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mutants.main(["caught"], without_pytest)
    for name in ("product.py", "test_product.py"):
        with (tree / name).open("a") as file:
            file.write("# changed\n")
        assert OutcomeLog(mutants.STATE).find("caught", CAUGHT.key(tree)) is None
        assert mutants.main(["--resume", "caught"], without_pytest) == 0
    capsys.readouterr()
    (tree / "another.py").write_text("")
    assert mutants.main(["--resume", "caught"], without_pytest) == 0
    assert "0 of 1 mutants to be run" in capsys.readouterr().out


def test_tests_that_fail_without_a_mutant_prove_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "product.py").write_text("answer = 42\nanswer += 1\n")
    assert mutants.main(["caught"], without_pytest) == 1
    assert "mutants would prove nothing" in capsys.readouterr().err
    assert not mutants.STATE.exists()
