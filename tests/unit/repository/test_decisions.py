"""The decision records are complete and their index is current; the check fails when they are not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "docs" / "build_decisions_index.py"
RECORDS = ROOT / "docs" / "decisions"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A copy of the records, with its index."""
    return Path(shutil.copytree(RECORDS, tmp_path / "decisions"))


def record(folder: Path, number: int) -> Path:
    (path,) = folder.glob(f"{number:04}-*.md")
    return path


def without(pattern: str) -> Callable[[str], str]:
    """An edit that removes the only match of a pattern."""

    def edit(text: str) -> str:
        edited, num_matches = re.subn(pattern, "", text, flags=re.M | re.S)
        assert num_matches == 1
        return edited

    return edit


def test_the_records_are_valid_and_the_index_is_current() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_the_index_links_to_every_record() -> None:
    linked = re.findall(r"\]\(([^)]+)\) \| (?:Accepted|Rejected|Superseded)", (RECORDS / "README.md").read_text())
    assert linked == sorted(path.name for path in RECORDS.glob("[0-9]*.md"))


def test_a_stale_index_is_found_and_rebuilt(records: Path) -> None:
    path = record(records, 2)
    path.write_text(re.sub(r"^# 2\. .*", "# 2. Another title", path.read_text()))
    done = run("--check", records)
    assert done.returncode == 1
    assert "README.md is stale" in done.stderr
    assert "Another title" not in (records / "README.md").read_text()

    assert run(records).returncode == 0
    assert "[Another title]" in (records / "README.md").read_text()
    assert run("--check", records).returncode == 0


def test_a_missing_index_is_stale(records: Path) -> None:
    (records / "README.md").unlink()
    assert run("--check", records).returncode == 1


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (without(r"^Status: .*?\n"), "has 0 lines 'Status: ...'"),
        (without(r"^Date: .*?\n"), "has 0 lines 'Date: ...'"),
        (without(r"^## Context\n.*?(?=^## )"), "has no section Context"),
        (without(r"^## Decision\n.*?(?=^## |\Z)"), "has no section Decision"),
        (without(r"(?<=^## Context\n).*?(?=^## )"), "has an empty section Context"),
        (without(r"(?<=^Status: )Accepted$"), "has 0 lines 'Status: ...'"),
        (lambda text: text.replace("Status: Accepted", "Status: Done"), "the status 'Done'"),
        (
            lambda text: text.replace("Accepted", "Superseded by [1](0001-session-history-is-the-ground-state.md)"),
            "does not link to the later decision 1",
        ),
        (lambda text: re.sub(r"Date: .*", "Date: 2026-13-01", text), "the date '2026-13-01'"),
        (lambda text: text.replace("## Context", "## Context\n\nx\n\n## Options"), "has an unknown section Options"),
        (lambda text: text.replace("# 3.", "# 4.", 1), "the title has number 4"),
        (lambda text: text + "\nSee [decision 9](0009-gone.md).\n", "links to 0009-gone.md"),
    ],
)  # fmt: skip
def test_an_invalid_record_is_found(records: Path, edit: Callable[[str], str], problem: str) -> None:
    path = record(records, 3)
    path.write_text(edit(path.read_text()))
    for arguments in (["--check", records], [records]):
        done = run(*arguments)
        assert done.returncode == 1
        assert any(line.startswith(path.name) and problem in line for line in done.stderr.splitlines()), done.stderr


def test_sections_in_another_order_are_found(records: Path) -> None:
    path = record(records, 3)
    text = path.read_text().replace("## Context", "## X").replace("## Decision", "## Context")
    path.write_text(text.replace("## X", "## Decision"))
    done = run("--check", records)
    assert done.returncode == 1
    assert "its sections are not in the order" in done.stderr


def test_a_gap_and_a_duplicate_are_found(records: Path) -> None:
    path = record(records, 3)
    path.rename(path.with_name("0004-the-same-number.md"))
    done = run("--check", records)
    assert done.returncode == 1
    assert "number 3 is missing" in done.stderr
    assert "number 4 is used twice" in done.stderr
