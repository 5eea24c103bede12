"""The rows of a page as a rows file declares them: TOML with one ``[[rows]]`` for each kind of row.

It is a file of its own and no part of a bundle, so titles and rows change with a restart of the workers and without training.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from intentrec_core.errors import ConfigError

if TYPE_CHECKING:
    from intentrec_core.domain.spec import Domain, Field

#: More than a screen shows.
MAX_ROWS, MAX_ROW_ITEMS, MAX_TITLE_LENGTH = 20, 50, 200


class RowKind(StrEnum):
    """What a row holds."""

    CONTINUE = "continue"
    INTENT = "intent"
    BECAUSE_OF = "because_of"
    POPULAR = "popular"
    NEW = "new"


class RowRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of a page, or several of one kind.

    ``title``: with ``{label}`` for the label of an intent row, and ``{title}`` for the item of a because_of row. ``head`` and
    ``label``: the intent that it follows; without a label, there is an intent row for each of the ``at_most`` likeliest labels.
    ``weight``: of a row that follows no intent. ``size``: items in the row, at most.
    """

    kind: RowKind
    title: Annotated[str, Meta(min_length=1, max_length=MAX_TITLE_LENGTH)]
    head: str = ""
    label: str = ""
    at_most: Annotated[int, Meta(ge=1, le=MAX_ROWS)] = 1
    size: Annotated[int, Meta(ge=1, le=MAX_ROW_ITEMS)] = 10
    weight: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def problem(self, domain: Domain) -> str | None:
        """What of the rule does not fit a domain, with what is allowed; None if it fits."""
        heads = {head.name: head for head in domain.heads if head.is_item_label or self.kind is not RowKind.INTENT}
        if self.head:
            if self.head not in heads:
                return f"head is {self.head!r}; allowed: {', '.join(sorted(heads))}"
            return _label_problem(self.label, heads[self.head])
        return None

    def wrong(self) -> str | None:
        """What is wrong whatever the domain is, with what is allowed; None if nothing is."""
        placeholder = {RowKind.INTENT: "{label}", RowKind.BECAUSE_OF: "{title}"}.get(self.kind, "")
        rest = self.title.replace(placeholder, "") if placeholder else self.title
        if "{" in rest or "}" in rest:
            return f"title is {self.title!r}; allowed in braces: {placeholder or 'nothing'}"
        if self.kind is RowKind.INTENT and not self.head:
            return "head is missing; an intent row follows a head of the domain whose label the item alone gives"
        if self.kind is RowKind.BECAUSE_OF and self.head:
            return f"head is {self.head!r}; allowed: none, these rows follow the member's newest plays"
        if self.label and not self.head:
            return f"label is {self.label!r}; allowed: none without head"
        if self.head and not self.label and self.kind is not RowKind.INTENT:
            return f"label is missing; a {self.kind.value} row follows one label of {self.head}"
        return None


class _RowsFile(Struct, frozen=True, forbid_unknown_fields=True):
    rows: Annotated[tuple[RowRule, ...], Meta(min_length=1, max_length=MAX_ROWS)]


def shipped_rows() -> list[str]:
    """Names of the rows files that come with the package."""
    folder = resources.files("stream") / "pages"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_row_rules(name_or_path: str) -> tuple[RowRule, ...]:
    """The rules of a shipped rows file by name, or of a file by path.

    Raises: ConfigError naming file, row, field and what is allowed.
    """
    if name_or_path in shipped_rows():
        text = (resources.files("stream") / "pages" / f"{name_or_path}.toml").read_text("utf-8")
    else:
        try:
            text = Path(name_or_path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            shipped = ", ".join(shipped_rows())
            raise ConfigError(
                f"rows {name_or_path}: cannot be read: {error}; allowed: a rows file, or {shipped}"
            ) from error
    try:
        rules = msgspec.toml.decode(text, type=_RowsFile).rows
    except msgspec.DecodeError as error:  # names the field and what is allowed
        raise ConfigError(f"rows {name_or_path}: {error}") from error
    for number, rule in enumerate(rules):
        if (wrong := rule.wrong()) is not None:
            raise ConfigError(f"rows {name_or_path}: rows[{number}].{wrong}")
    return rules


def check_row_rules(rules: Sequence[RowRule], domain: Domain, source: str) -> None:
    """Raises: ConfigError where a rule names what the domain does not have."""
    for number, rule in enumerate(rules):
        if (problem := rule.problem(domain)) is not None:
            raise ConfigError(f"rows {source}: rows[{number}].{problem} (of domain {domain.name})")


def _label_problem(label: str, head: Field) -> str | None:
    if not label or label in head.label_names:
        return None
    return f"label is {label!r}; allowed: {', '.join(head.label_names)}"
