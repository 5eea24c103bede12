"""Writes docs/decisions/README.md, the index of the decision records, and checks the records.

    python docs/build_decisions_index.py            write the index
    python docs/build_decisions_index.py --check    write nothing; exit 1 when a record is invalid or the index is stale

A record is a file ``NNNN-slug.md`` with a title ``# N. Title``, the lines ``Status:`` and ``Date:``, and the sections Context,
Decision, Measured and Rejected in this order; the last two are optional. Numbers run from 1 without gaps.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "decisions"
INDEX = "README.md"
SECTIONS = ("Context", "Decision", "Measured", "Rejected")
REQUIRED = ("Context", "Decision")

INTRODUCTION = """\
# Decisions

To add a decision, create `NNNN-short-slug.md` with the next number and the same header and sections as the newest file, set the
status of each decision that it replaces to `Superseded by [N](file)` instead of editing its text, and run
`python docs/build_decisions_index.py`, which writes this table.

Each measurement names its machine; where it names none, the machine is 2 CPU cores of a shared server, with float32 and
without a GPU.

| number | decision | status | date |
|---|---|---|---|
"""

_FILE = re.compile(r"(\d{4})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
_TITLE = re.compile(r"# (\d+)\. (\S.*)")
_STATUS = re.compile(r"Accepted|Rejected|Superseded by \[(\d+)\]\((\d{4})-[a-z0-9-]+\.md\)")
_LINK = re.compile(r"\]\((\d{4}-[^)#]*)")


@dataclass(frozen=True)
class Decision:
    """One record. ``problems`` lists, as one line each, what is wrong with the file."""

    name: str
    number: int
    title: str
    status: str
    date: str
    problems: tuple[str, ...]


def read_decision(path: Path) -> Decision:
    """Parses a record. An invalid record has problems and empty fields; this function does not raise for it."""
    text = path.read_text(encoding="utf-8")
    problems: list[str] = []
    file_name, title = _FILE.fullmatch(path.name), _TITLE.fullmatch(text.partition("\n")[0])
    if file_name is None:
        problems.append("the file name is not NNNN-short-slug.md")
    if title is None:
        problems.append("the first line is not '# N. Title'")
    number = int(file_name[1]) if file_name else 0
    if file_name and title and int(title[1]) != number:
        problems.append(f"the title has number {title[1]}, the file name has {number}")

    header = text.partition("\n## ")[0]
    status, date = _field(header, "Status", problems), _field(header, "Date", problems)
    superseded = _STATUS.fullmatch(status)
    if status and superseded is None:
        problems.append(f"the status {status!r} is not Accepted, Rejected or Superseded by [N](file)")
    elif superseded and superseded[1] and not int(superseded[1]) == int(superseded[2]) > number:
        problems.append(f"the status {status!r} does not link to the later decision {superseded[1]}")
    if date and not _is_date(date):
        problems.append(f"the date {date!r} is not YYYY-MM-DD")

    problems += _section_problems(text)
    problems += [f"links to {target}, which does not exist" for target in _dead_links(path, text)]
    return Decision(path.name, number, title[2] if title else "", status, date, tuple(problems))


def read_decisions(folder: Path) -> list[Decision]:
    """All records of a folder, by file name."""
    return [read_decision(path) for path in sorted(folder.glob("*.md")) if path.name != INDEX]


def find_problems(decisions: list[Decision]) -> list[str]:
    """One line for each invalid record, and for each number that is missing or used twice."""
    problems = [f"{decision.name}: {problem}" for decision in decisions for problem in decision.problems]
    numbers = [decision.number for decision in decisions]
    expected = range(1, max(numbers, default=0) + 1)
    problems += [f"number {number} is missing" for number in expected if number not in numbers]
    problems += [f"number {number} is used twice" for number in expected if numbers.count(number) > 1]
    return problems


def build_index(decisions: list[Decision]) -> str:
    """The text of the index."""
    rows = (f"| {d.number} | [{d.title}]({d.name}) | {d.status} | {d.date} |\n" for d in decisions)
    return INTRODUCTION + "".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Write or check the index of the decision records.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the index is stale")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="the records (default: docs/decisions)")
    options = parser.parse_args(arguments)

    decisions = read_decisions(options.folder)
    index, text = options.folder / INDEX, build_index(decisions)
    problems = find_problems(decisions)
    if options.check and (not index.is_file() or index.read_text(encoding="utf-8") != text):
        problems.append(f"{INDEX} is stale: run python docs/build_decisions_index.py")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    if not options.check:
        index.write_text(text, encoding="utf-8")
    return 0


def _field(header: str, name: str, problems: list[str]) -> str:
    found = re.findall(rf"^{name}: (.+)$", header, re.M)
    if len(found) == 1:
        return str(found[0])
    problems.append(f"has {len(found)} lines '{name}: ...' above the sections, not one")
    return ""


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _section_problems(text: str) -> list[str]:
    _, *parts = re.split(r"^## ", text, flags=re.M)
    sections = [(name, body.strip()) for name, _, body in (part.partition("\n") for part in parts)]
    names = [name for name, _ in sections]
    problems = [f"has no section {name}" for name in REQUIRED if name not in names]
    problems += [f"has an unknown section {name}" for name in names if name not in SECTIONS]
    problems += [f"has an empty section {name}" for name, body in sections if not body]
    if [name for name in SECTIONS if name in names] != [name for name in names if name in SECTIONS]:
        problems.append(f"its sections are not in the order {', '.join(SECTIONS)}")
    return problems


def _dead_links(path: Path, text: str) -> list[str]:
    return sorted({target for target in _LINK.findall(text) if not (path.parent / target).is_file()})


if __name__ == "__main__":
    sys.exit(main())
