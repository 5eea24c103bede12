"""What a mutant is, and how it is applied to a tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.rigs.outcome_log import source_key


class DoesNotApply(Exception):
    """The source is no longer what the mutant was written for: write the mutant anew, or it proves nothing."""


@dataclass(frozen=True, slots=True)
class Edit:
    """``old`` is found exactly once in ``file``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, and the tests of which one must fail on it; the quickest first."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    def key(self, tree: Path) -> str:
        """What an outcome depends on, as a hash: the sources that are changed, how, and the files of the tests."""
        files = [edit.file for edit in self.edits] + [test.partition("::")[0] for test in self.tests]
        return source_key([tree / file for file in files], repr(self.edits), repr(self.tests))

    def apply(self, tree: Path) -> dict[Path, str]:
        """The sources it changes in ``tree``, as they become.

        Raises: DoesNotApply when one of its texts is not there, or more than once.
        """
        changed: dict[Path, str] = {}
        for edit in self.edits:
            path = tree / edit.file
            source = changed.get(path) or path.read_text()
            if source.count(edit.old) != 1:
                raise DoesNotApply(f"{self.name}: {source.count(edit.old)} times in {edit.file}, not once:\n{edit.old}")
            changed[path] = source.replace(edit.old, edit.new)
        for path, source in changed.items():
            if path.suffix == ".py":
                compile(source, str(path), "exec")
        return changed


def one_edit(area: str, name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A fault in one place of one file. ``area`` stands before its name."""
    return Mutant(f"{area}: {name}", (Edit(file, old, new),), tests)
