"""`python -m tests.faults`: a file at a time, what passed is not run again, and one table shows all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import __main__ as faults
from tests.rigs.outcome_log import OutcomeLog, part_of

FILES = ["test_a.py", "test_b.py", "test_c.py"]


class Tests:
    """Stands for pytest: files that fail, and which ones were run."""

    __test__ = False

    def __init__(self, *failing: str) -> None:
        self.failing, self.run = set(failing), list[str]()

    def __call__(self, file: str, report: Path) -> tuple[int, str]:
        self.run.append(file)
        passed = file not in self.failing
        report.write_text(json.dumps({"fault": f"fault of {file}", "test": "t", "passed": passed, "lost": 0}) + "\n")
        return (0, "3 passed, 1 skipped in 2 s") if passed else (1, "what it printed")


def test_every_fault_of_the_table_is_there() -> None:
    files = faults.fault_files(faults.ROOT)
    assert {"tests/faults/test_overload.py", "tests/integration/test_refusals.py"} <= set(files)
    assert all((faults.ROOT / file).exists() for file in files)


def test_what_each_file_came_to_is_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, report = OutcomeLog(tmp_path / "faults.jsonl"), tmp_path / "report.jsonl"
    faults.run_files(FILES[:2], log, "k", Tests("test_b.py"))
    capsys.readouterr()
    assert faults.print_table(FILES, OutcomeLog(tmp_path / "faults.jsonl"), "k", report) == 1
    said, errors = capsys.readouterr()
    assert "1 of 3 files passed, 1 failed, 1 not run on these sources; 2 rows" in said
    assert "    fault of test_a.py\n        lost 0" in said
    assert "FAILED: fault of test_b.py" in said
    assert "--- test_b.py\nwhat it printed" in errors
    assert [json.loads(line)["fault"] for line in report.read_text().splitlines()] == [
        "fault of test_a.py",
        "fault of test_b.py",
    ]
    faults.run_files(FILES[1:], log, "k", Tests())
    assert faults.print_table(FILES, log, "k", report) == 0
    assert faults.print_table(FILES, log, "other sources", report) == 1


def test_a_file_whose_tests_were_all_skipped_has_not_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = OutcomeLog(tmp_path / "faults.jsonl")
    faults.run_files(FILES[:1], log, "k", lambda *_: (0, "2 skipped in 1 s"))
    assert faults.print_table(FILES[:1], log, "k", tmp_path / "report.jsonl") == 1
    assert "FAILED, 2 skipped" in capsys.readouterr().out


def test_a_run_goes_on_with_what_has_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tests, key = Tests("test_b.py"), ["k"]
    monkeypatch.setattr(faults, "ROOT", tmp_path)
    monkeypatch.setattr(faults, "STATE", tmp_path / "faults.jsonl")
    monkeypatch.setattr(faults, "fault_files", lambda _: FILES)
    monkeypatch.setattr(faults, "sources", lambda _: key[0])
    assert faults.main(["--part", "2/3"], tests) == 1
    assert faults.main(["--resume"], tests) == 1
    assert tests.run == ["test_b.py", *FILES]
    tests.failing.clear()
    assert faults.main(["--resume"], tests) == 0
    assert tests.run[4:] == ["test_b.py"]
    key[0] = "another"
    assert faults.main(["--resume", "_c"], tests) == 0
    assert tests.run[5:] == ["test_c.py"]


def test_a_hash_of_the_sources_changes_with_any_of_them(tmp_path: Path) -> None:
    (tmp_path / "stream").mkdir()
    before = faults.sources(tmp_path)
    (tmp_path / "stream" / "new.py").write_text("")
    assert faults.sources(tmp_path) != before


@pytest.mark.parametrize("total", [1, 2, 3, 7, 20])
def test_parts_are_all_of_it(total: int) -> None:
    items = list(range(10))
    assert [item for number in range(total) for item in part_of(items, f"{number + 1}/{total}")] == items


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "-1/2", ""])
def test_a_part_that_is_none_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="is not K/N"):
        part_of([1], part)
