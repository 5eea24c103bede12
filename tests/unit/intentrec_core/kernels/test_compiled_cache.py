"""Numba's cache between processes: never code of another source, and the same results as fresh compilation."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from intentrec_core.kernels.dense import compiled_sources

ROOT = Path(__file__).parents[4]
PARITY = "tests/parity/test_encoders.py::test_whole_contexts_of_all_lengths_equal_the_model"
#: A pytest plugin that prints the names of the functions which a process compiled.
TELL_WHAT_IS_COMPILED = """
from numba.core import event
compiled = event.RecordingListener()
event.register("numba:compile", compiled)
def pytest_terminal_summary(terminalreporter):
    names = sorted({told.data["dispatcher"].py_func.__qualname__ for _, told in compiled.buffer if told.is_start})
    terminalreporter.write_line("compiled here: " + " ".join(names))
"""


def core_imports(path: Path) -> set[Path]:
    """Files of the core's modules that a file imports from."""
    imported = (node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    return {ROOT / (name.replace(".", "/") + ".py") for name in imported if name.startswith("intentrec_core.")}


def test_the_cache_is_keyed_by_every_source_that_compiled_code_is_made_of() -> None:
    sources = set(compiled_sources())
    compiled = {path for path in (ROOT / "intentrec_core").rglob("*.py") if "@compiled" in path.read_text()}
    assert len(compiled) >= 4
    assert compiled <= sources
    assert {module for path in compiled for module in core_imports(path)} <= sources


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_code_compiled_into_an_empty_cache_equals_the_model_and_the_next_process_compiles_nothing(
    tmp_path: Path,
) -> None:
    """A warm cache hides code that no longer compiles, or that compiles to something else, until the first cold start."""
    (tmp_path / "tell_what_is_compiled.py").write_text(TELL_WHAT_IS_COMPILED)
    options = ["--timeout=280", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "tell_what_is_compiled"]

    def compiled_names() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *options, PARITY],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        (told,) = [line for line in done.stdout.splitlines() if line.startswith("compiled here:")]
        return told.removeprefix("compiled here:").split()

    assert "encode_held" in compiled_names()
    assert not compiled_names()
