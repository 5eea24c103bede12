"""Tables of the report: wide ones are scrolled sideways, and their numbers are those of the JSON, rounded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from intentrec_core.evaluation.html.elements import Child, Html, element


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column; numbers stand at the right. ``is_wide``: its texts have several words."""

    title: str
    is_number: bool = True
    is_wide: bool = False


def table(
    columns: Sequence[Column], rows: Iterable[tuple[Sequence[Child], bool]], *, caption: str | None = None
) -> Html:
    """A table whose first cell of each row names it. Each row: its cells, and whether it is pointed out."""
    head = [element("th", column.title, scope="col", class_=_class(column)) for column in columns]
    body = []
    for cells, is_ours in rows:
        first, *others = cells
        made = [element("th", first, scope="row")]
        made += [element("td", cell, class_=_class(column)) for cell, column in zip(others, columns[1:], strict=True)]
        body.append(element("tr", made, class_="ours" if is_ours else None))
    return element(
        "div",
        element(
            "table",
            element("caption", caption) if caption else None,
            element("thead", element("tr", head)),
            element("tbody", body),
        ),
        class_="scroll",
    )


def _class(column: Column) -> str | None:
    return "n" if column.is_number else "t" if column.is_wide else None
