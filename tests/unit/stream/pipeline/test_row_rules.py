"""A rows file is read whole, or refused with the row, the field and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import ConfigError
from stream.pipeline.row_rules import RowKind, check_row_rules, load_row_rules, shipped_rows

INTENT = 'kind = "intent"\ntitle = "In the mood for {label}"\nhead = "genre"\n'


@pytest.mark.parametrize("name", shipped_rows())
def test_a_shipped_file_fits_the_domain_of_its_name(name: str) -> None:
    rules = load_row_rules(name)
    check_row_rules(rules, load_domain(name), name)
    assert {RowKind.INTENT, RowKind.BECAUSE_OF, RowKind.POPULAR, RowKind.NEW} <= {rule.kind for rule in rules}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "required field `rows`"),
        ("rows = []", "length >= 1"),
        ('[[rows]]\nkind = "trending"\ntitle = "x"', "trending"),
        ('[[rows]]\nkind = "new"', "title"),
        ('[[rows]]\nkind = "new"\ntitle = "x"\nsize = 51', "<= 50"),
        ('[[rows]]\nkind = "new"\ntitle = "x"\nweights = 1', "weights"),
        ('[[rows]]\nkind = "new"\ntitle = "New {label}"', r"rows\[0\].title is .*allowed in braces: nothing"),
        ('[[rows]]\nkind = "intent"\ntitle = "{title}"\nhead = "genre"', r"allowed in braces: \{label\}"),
        ('[[rows]]\nkind = "intent"\ntitle = "{label}"', "head is missing"),
        ('[[rows]]\nkind = "because_of"\ntitle = "{title}"\nhead = "genre"', "allowed: none"),
        ('[[rows]]\nkind = "popular"\ntitle = "x"\nlabel = "Drama"', "none without head"),
        ('[[rows]]\nkind = "continue"\ntitle = "x"\nhead = "action"', "label is missing"),
        ("[[rows", "rows.toml"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "rows.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem) as raised:
        load_row_rules(str(file))
    assert "rows.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("", None),
        ('label = "Drama"', None),
        ('label = "Jazz"', r"rows\[0\].label is 'Jazz'; allowed: Action, .* \(of domain video\)"),
    ],
)
def test_what_the_domain_does_not_have_is_refused(tmp_path: Path, more: str, problem: str | None) -> None:
    file = tmp_path / "rows.toml"
    file.write_text(f"[[rows]]\n{INTENT}{more}")
    rules = load_row_rules(str(file))
    if problem is None:
        check_row_rules(rules, load_domain("video"), str(file))
        return
    with pytest.raises(ConfigError, match=problem):
        check_row_rules(rules, load_domain("video"), str(file))


def test_a_label_of_a_play_is_no_row_of_items(tmp_path: Path) -> None:
    file = tmp_path / "rows.toml"
    file.write_text("[[rows]]\n" + INTENT.replace("genre", "action"))
    with pytest.raises(ConfigError, match="head is 'action'; allowed: format, genre, release_age"):
        check_row_rules(load_row_rules(str(file)), load_domain("video"), str(file))


def test_a_file_that_is_not_there_is_named_with_the_shipped_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"rows nowhere.toml: cannot be read: .*; allowed: a rows file, or movielens, video"
    ):
        load_row_rules("nowhere.toml")
