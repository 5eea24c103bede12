"""Every mutant still applies to the source as it is: one that does not proves nothing any more. They run by `make mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import MUTANTS, ROOT
from tests.mutants.mutant import DoesNotApply, Edit, Mutant


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
