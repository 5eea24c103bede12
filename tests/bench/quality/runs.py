"""One run: made once, and kept under a hash of data, domain, tasks, configuration, code and seed.

The hash of the code covers what the code does: comments, docstrings and layout may change without a new run. If changed
code gives the same answers as earlier code, it keeps the earlier hash (:mod:`tests.bench.quality.same_answers` checks that). The
hash of the tasks covers which plays are predicted, and what may be known at each of them. A protocol can get another name
without a new run.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.domain.spec import FirstModelDefaults
from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.rankers import Ranked
from intentrec_core.evaluation.task import Task
from tests.bench.quality.data_sets import Loaded
from tests.bench.quality.rows import Answers, Row

ROOT = Path(__file__).parents[3]
#: By the hash of some code, the hash of earlier code that gives the same answers.
SAME_ANSWERS = Path(__file__).with_name("same_answers.json")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_OUTCOMES = tuple(HeadOutcomes.__slots__)
#: Names of the protocols of freshness (:mod:`tests.bench.quality.freshness`) begin so.
PREFIX = "freshness, "
#: In place of a row's name and code, where the history says what is asked.
ASKED = "what is asked"
#: What turns a run into figures.
FIGURES_CODE = (
    "intentrec_core/evaluation/heads.py",
    "intentrec_core/evaluation/lists.py",
    "intentrec_core/evaluation/metrics.py",
    "intentrec_core/evaluation/outcome.py",
    "tests/bench/quality/figures.py",
)


@dataclass(frozen=True, slots=True)
class Runs:
    """The folder of finished runs."""

    folder: Path = ROOT / ".intentrec" / "quality"

    def path(self, key: str) -> Path:
        """Where the run of this key is kept."""
        return self.folder / f"{key}.npz"

    def read(self, key: str, num_targets: int) -> Answers | None:
        """A finished run; None if it was not made, its file is not whole, or it is one of another number of targets."""
        try:
            with self.path(key).open("rb") as file, np.load(file) as found:
                names = json.loads(str(found["names"]))
                heads = {n: HeadOutcomes(*(found[f"{n}/{part}"] for part in _OUTCOMES)) for n in names}
                ranked = Ranked(found["ranks"], found["listed"])
                return Answers(ranked, str(found["note"]), heads) if len(ranked.ranks) == num_targets else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def keep(self, key: str, answers: Answers) -> None:
        """Keeps a run: whole, or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"ranks": answers.ranked.ranks, "listed": answers.ranked.listed.astype(np.int32)}
        for name, outcomes in answers.heads.items():
            arrays |= {f"{name}/{part}": getattr(outcomes, part) for part in _OUTCOMES}
        partial = self.folder / f"{key}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            np.savez_compressed(file, note=answers.note, names=json.dumps(list(answers.heads)), **arrays)
        partial.replace(self.path(key))


def run_key(loaded: Loaded, protocol: Protocol, row: Row, seed: int) -> str:
    """The name of a run: the same for the same data, domain, tasks, configuration, code and seed. Runs that are trained also
    depend on torch's version and number of threads. Runs of a freshness protocol also depend on its name, because protocols with
    different lags have the same tasks.
    """
    asked = tasks_hash(loaded, protocol, with_times=not row.is_trained)
    versions = f"{torch.__version__} {torch.get_num_threads()}" if row.is_trained else ""
    lag = [protocol.name] if protocol.name.startswith(PREFIX) else []
    return hashed(row.name, row.configuration, asked, code_hash(row.code), str(seed), versions, *lag)


def tasks_hash(loaded: Loaded, protocol: Protocol, *, with_times: bool = True) -> str:
    """A hash of what is asked and what is known: data, domain, universe and filter, plays, and what may be learned at each.

    What the domain declares for a first model is left out: every row has its own settings. Without ``with_times``, what is known
    of the time of a list is left out too: a trained row does not use it.
    """
    domain = dataclasses.replace(load_domain(loaded.domain), first_model=FirstModelDefaults())
    found = hashlib.sha256(f"{loaded.digest}\0{domain}\0{loaded.data.hides_history}\0".encode())
    found.update(loaded.data.universe.tobytes())
    for task in (protocol.validation, protocol.test):
        for values in _asked(task, with_times):
            found.update(f"{values.dtype} {values.shape}\0".encode() + values.tobytes())
    return found.hexdigest()[:16]


def _asked(task: Task, with_times: bool) -> tuple[NDArray[Any], ...]:
    asked = (task.targets.play, task.learnable, task.learned)
    return (*asked, task.live, task.countable, task.now_s) if with_times else asked


def row_hash(row: Row) -> str:
    """A hash of the code and the configuration that a row's figures come from: one that is not today's is not shown."""
    return hashed(row.name, row.configuration, code_hash(row.code), code_hash(FIGURES_CODE))


def hashed(*parts: str) -> str:
    """A short hash of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@cache
def code_hash(paths: tuple[str, ...]) -> str:
    """A hash of what the code of these files and folders does, or that of earlier code which gives the same answers."""
    own = own_code_hash(paths)
    return _same_answers().get(own, own)


@cache
def _same_answers() -> dict[str, str]:
    found: dict[str, str] = json.loads(SAME_ANSWERS.read_text("utf-8"))
    return found


def own_code_hash(paths: tuple[str, ...]) -> str:
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
