"""One run: made once, and kept under a hash of data, protocol, configuration, code and seed.

The hash of the code is of what it does: comments, docstrings and layout may change without a new run.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import Ranked
from tests.bench.quality.data_sets import Loaded
from tests.bench.quality.rows import Answers, Row

ROOT = Path(__file__).parents[3]
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_OUTCOMES = tuple(HeadOutcomes.__slots__)


@dataclass(frozen=True, slots=True)
class Runs:
    """The folder of finished runs."""

    folder: Path = ROOT / ".intentrec" / "quality"

    def path(self, key: str) -> Path:
        """Where the run of this key is kept."""
        return self.folder / f"{key}.npz"

    def read(self, key: str) -> Answers | None:
        """A finished run; None if it was not made, or its file is not whole."""
        try:
            with self.path(key).open("rb") as file, np.load(file) as found:
                names = json.loads(str(found["names"]))
                heads = {n: HeadOutcomes(*(found[f"{n}/{part}"] for part in _OUTCOMES)) for n in names}
                return Answers(Ranked(found["ranks"], found["listed"]), str(found["note"]), heads)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def keep(self, key: str, answers: Answers) -> None:
        """Keeps a run: whole, or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, object] = {"ranks": answers.ranked.ranks, "listed": answers.ranked.listed.astype(np.int32)}
        for name, outcomes in answers.heads.items():
            arrays |= {f"{name}/{part}": getattr(outcomes, part) for part in _OUTCOMES}
        partial = self.folder / f"{key}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            np.savez_compressed(file, note=answers.note, names=json.dumps(list(answers.heads)), **arrays)  # type: ignore[arg-type]
        partial.replace(self.path(key))


def run_key(loaded: Loaded, protocol: Protocol, row: Row, seed: int) -> str:
    """The name of a run: the same for the same data, protocol, configuration, code and seed."""
    parts = (loaded.digest, protocol.name, row.name, row.configuration, code_hash(row.code), str(seed))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def code_hash(paths: tuple[str, ...]) -> str:
    """A hash of what the code of these files and folders does."""
    found = hashlib.sha256()
    for path in paths:
        whole = ROOT / path
        for file in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole]:
            found.update(f"{file.relative_to(ROOT)}\0{meaning(file.read_text('utf-8'))}\0".encode())
    return found.hexdigest()


def meaning(source: str) -> str:
    """A module's syntax tree as text, without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
