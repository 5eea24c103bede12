"""Figures that others published: where each stands, to the row. published.csv holds one a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("published.csv")


@dataclass(frozen=True, slots=True)
class Published:
    """One figure. ``value`` is a text with the digits that were published; ``how`` says what the protocol leaves open."""

    data: str
    protocol: str
    model: str
    metric: str
    value: str
    repository: str
    commit: str
    file: str
    row: str
    how: str

    @property
    def link(self) -> str:
        """The file at its commit."""
        return f"https://github.com/{self.repository}/blob/{self.commit}/{self.file}"


def published() -> list[Published]:
    """Every figure of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [Published(**row) for row in csv.DictReader(file)]


def published_lines(data: str, metrics: Sequence[str]) -> Iterator[str]:
    """The table of one data set's published figures; nothing where there are none."""
    found = [figure for figure in published() if figure.data == data]
    if not found:
        return
    yield from ("", "#### Published", "")
    yield "Figures of others, as they stand at the commit. They were run by other code: on other splits of ties, other budgets."
    yield ""
    yield "| model | " + " | ".join(metric.upper() for metric in metrics) + " | protocol | how | source |"
    yield "|---" * (len(metrics) + 4) + "|"
    for model in dict.fromkeys(figure.model for figure in found):
        of_model = {figure.metric: figure for figure in found if figure.model == model}
        one = next(iter(of_model.values()))
        cells = [of_model[metric].value if metric in of_model else "–" for metric in metrics]
        source = f"[{one.repository}]({one.link}), {one.row.replace('|', '/')}"
        yield f"| {model} | {' | '.join(cells)} | {one.protocol} | {one.how} | {source} |"
