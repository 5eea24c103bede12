"""Domain files: the shipped ones hold together, and a mistake is named by file, field and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from intentrec_core.domain.spec import FieldKind, FirstModelDefaults
from intentrec_core.domain.toml import domain_text, load_domain, parse_domain, shipped_domains
from intentrec_core.errors import ConfigError, DomainError
from intentrec_core.history.history import EventLayout
from intentrec_core.model.config import ModelConfig
from intentrec_core.training.config import TrainConfig
from tests.rigs.changelog_bytes import BUDGET_BYTES, NUM_PLAYS, written_bytes

VALID = """
name = "mine"
[history]
window = 8
[[field]]
name = "genre"
kind = "multi_label"
source = "catalogue"
values = ["a", "b"]
intent = true
[[field]]
name = "age"
kind = "bucketed"
source = "rule"
rule = "time_since_release"
key = "released"
edges = [7, 30]
labels = ["new", "recent", "old"]
[[field]]
name = "action"
kind = "categorical"
source = "event"
values = ["play", "skip"]
intent = true
[[filter]]
kind = "watched"
unless_head = "action"
unless_values = ["skip"]
"""

AT_MOST = "[[filter]]\nkind = 'at_most'\nkey = 'm'\nevent_key = 'm'\n"
FIRST_MODEL = "[first_model]\nepochs = 3\nown_items = true\n"
CONTAINS = "[[filter]]\nkind = 'contains'\nkey = 'r'\nevent_key = 'r'\n"

MISTAKES = [
    ('kind = "watched"', 'kind = "watched"\ndefault = "x"', "filter watched.default", "unless_head"),
    ('name = "mine"', 'name = "My Domain"', "name", "lower-case"),
    ("window = 8", "window = 1", "history.window", "2 to 4096"),
    ("window = 8", "windows = 8", "history.window", "2 to 4096"),
    ("window = 8", "window = 8\nsize = 3", "history.size", "window"),
    (
        "window = 8",
        "window = 8\nearliest = 631152000",
        "history.earliest",
        "a date such as 1990-01-01, from 1971-01-01",
    ),
    ("window = 8", "window = 8\n[first_model]\nepochs = 0", "first_model.epochs", "a whole number, 1 to 10000"),
    ("window = 8", "window = 8\n[first_model]\nepochs = 2.5", "first_model.epochs", "a whole number, 1 to 10000"),
    ("window = 8", 'window = 8\n[first_model]\nown_items = "yes"', "first_model.own_items", "true or false"),
    ("window = 8", "window = 8\n[first_model]\nwidth = 64", "first_model.width", "epochs, own_items"),
    ("[history]", "first_model = 6\n[history]", "first_model", "a table"),
    ("window = 8", 'window = 8\nearliest = "soon"', "history.earliest", "a date such as 1990-01-01"),
    ("window = 8", "window = 8\nearliest = 1970-12-31", "history.earliest", "from 1971-01-01 up to 2100-01-01"),
    ("window = 8", "window = 8\nearliest = 2100-01-01", "history.earliest", "from 1971-01-01 up to 2100-01-01"),
    ('kind = "multi_label"', 'kind = "multilabel"', "field genre.kind", "categorical, multi_label, bucketed"),
    ('source = "catalogue"', 'source = "event"', "field genre.kind", "multi_label only with source = catalogue"),
    ('rule = "time_since_release"', 'rule = "freshness"', "field age.rule", "first_contact, time_since_release"),
    ('key = "released"\n', "", "field age.key", "release time"),
    ("edges = [7, 30]", "edges = [30, 7]", "field age.edges", "rising"),
    ("edges = [7, 30]", "edges = []", "field age.edges", "rising"),
    ('labels = ["new", "recent", "old"]', 'labels = ["new", "old"]', "field age.labels", "3: one more than edges"),
    ('labels = ["new", "recent", "old"]', 'labels = ["new", "old", "old"]', "field age.labels", "different"),
    ('values = ["a", "b"]', 'values = ["a", "a"]', "field genre.values", "different"),
    ('values = ["a", "b"]', "values = []", "field genre.values", "different"),
    ('name = "age"', 'name = "genre"', "field genre", "each name once"),
    ("intent = true", "intent = 1", "field genre.intent", "true or false"),
    ('unless_head = "action"', 'unless_head = "age"', "filter watched.unless_head", "genre, action"),
    ('unless_values = ["skip"]', 'unless_values = ["stop"]', "filter watched.unless_values", "play"),
    ('kind = "watched"', 'kind = "seen"', "filter[0].kind", "watched, available, at_most, contains"),
    (
        '[[filter]]\nkind = "watched"',
        '[[filter]]\nkind = "at_most"\nkey = "m"',
        "filter at_most.event_key",
        "play.context",
    ),
    ("[[filter]]", "[[filters]]", "filters", "name"),
    ("edges = [7, 30]", "edges = 10", "field age.edges", "list of finite numbers"),
    ('values = ["a", "b"]', "values = 5", "field genre.values", "list of texts"),
    ("window = 8", f"window = 8\nsession_gap_s = 1{'0' * 400}", "history.session_gap_s", "1 to"),
    ('name = "age"', 'name = "ts_ms"', "field ts_ms.name", "which histories use"),
    ('name = "action"\nkind', 'name = "action"\nkey = "duration_s"\nkind', "field action.kind", "bucketed"),
    ('unless_values = ["skip"]', "", "filter watched.unless_head", "together"),
    ("[[filter]]", '[[filter]]\nkind = "watched"\n[[filter]]', "filter watched", "each once"),
    ("[[filter]]", f"{AT_MOST}default = '12'\n[[filter]]", "filter at_most.default", "a number"),
    ("[[filter]]", f"{AT_MOST}default = 1e39\n[[filter]]", "filter at_most.default", "a number"),
    ("[[filter]]", f"{CONTAINS}default = 7\n[[filter]]", "filter contains.default", "a text"),
    ("[[filter]]", f"{CONTAINS}default = ''\n[[filter]]", "filter contains.default", "no default"),
]


def test_a_domain_is_shipped_for_each_data_set_and_each_simulated_world() -> None:
    assert shipped_domains() == ["beauty", "kuairand", "movielens", "movietweetings", "shop", "video"]


@pytest.mark.parametrize("name", [name for name in shipped_domains() if name != "beauty"])
def test_shipped_domain_has_intents_and_the_history_they_need(name: str) -> None:
    domain = load_domain(name)

    assert domain.name == name
    assert 3 <= len(domain.heads) <= 4
    assert domain.context_size == 2 * domain.window
    assert all(field.num_labels >= 2 for field in domain.fields)
    assert len(domain.fingerprint) == 16


@pytest.mark.parametrize("name", shipped_domains())
def test_a_play_of_a_shipped_domain_keeps_to_the_changelogs_budget(name: str) -> None:
    assert written_bytes(EventLayout(load_domain(name)), NUM_PLAYS) <= BUDGET_BYTES


def test_video_declares_the_four_intents_of_the_paper() -> None:
    assert [head.name for head in load_domain("video").heads] == ["action", "genre", "format", "release_age"]


def test_labels_of_all_heads_are_numbered_one_head_after_another() -> None:
    domain = load_domain("video")
    assert domain.label_offsets == (0, 4, 20, 22)
    assert [head.num_labels for head in domain.heads] == [4, 16, 2, 6]


def test_valid_text_is_parsed_with_defaults() -> None:
    domain = parse_domain(VALID, "mine.toml")

    assert domain.session_gap_s == 1800
    assert domain.fields[1].label_names == ("new", "recent", "old")
    assert domain.fields[2].key == "action"
    assert domain.multi_fields[0].kind is FieldKind.MULTI_LABEL


def test_a_first_model_is_trained_as_the_domain_says_or_else_as_in_every_domain() -> None:
    declared, silent = (parse_domain(VALID + more, "mine.toml") for more in (FIRST_MODEL, ""))

    assert declared.first_model == FirstModelDefaults(epochs=3, own_items=True)
    assert silent.first_model == FirstModelDefaults()
    assert (TrainConfig.for_domain(declared).epochs, ModelConfig.for_domain(declared).own_items) == (3, True)
    assert (TrainConfig.for_domain(silent), ModelConfig.for_domain(silent)) == (TrainConfig(), ModelConfig())
    given = TrainConfig.for_domain(declared, epochs=7, seed=2, max_seconds=None)
    assert given == TrainConfig(epochs=7, seed=2)
    assert ModelConfig.for_domain(declared, own_items=False, width=None) == ModelConfig()
    assert ModelConfig.for_domain(declared, own_items=None, width=32) == ModelConfig(own_items=True, width=32)


@pytest.mark.parametrize("name", shipped_domains())
def test_how_a_first_model_is_trained_is_no_part_of_the_histories_nor_of_what_the_domain_is(name: str) -> None:
    text = re.sub(r"^\[first_model\]\n(?:.*\n)*?(?=\[)", "", domain_text(name), flags=re.M)
    assert "first_model" not in text

    silent, declared = (parse_domain(text + more, f"{name}.toml") for more in ("", FIRST_MODEL))

    for domain in (load_domain(name), declared):
        assert domain == silent, "bundles of before and after go together"
        assert domain.fingerprint == silent.fingerprint
        assert EventLayout(domain).dtype == EventLayout(silent).dtype


def test_what_holds_for_a_member_who_has_said_nothing_is_no_part_of_the_histories() -> None:
    filters = f"{AT_MOST}default = 12\n{CONTAINS}default = 'de'\n"

    domain = parse_domain(VALID + filters, "mine.toml")

    assert [f.default for f in domain.event_filters] == [12.0, "de"]
    silent = parse_domain(VALID + AT_MOST + CONTAINS, "mine.toml")
    assert [f.default for f in silent.event_filters] == [None, None]
    assert domain.fingerprint == silent.fingerprint, "a default may change without new histories"


@pytest.mark.parametrize(("right", "wrong", "field", "allowed"), MISTAKES)
def test_a_mistake_names_file_field_and_what_is_allowed(right: str, wrong: str, field: str, allowed: str) -> None:
    assert right in VALID

    with pytest.raises(DomainError) as raised:
        parse_domain(VALID.replace(right, wrong, 1), "mine.toml")

    assert raised.value.file == "mine.toml"
    assert raised.value.field == field
    assert allowed in raised.value.allowed
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "written", ["1995-06-01", "1995-06-01T00:00:00", "1995-06-01T02:00:00+02:00", '"1995-06-01"', '"801964800000"']
)
def test_the_earliest_time_is_a_date_or_a_time(written: str) -> None:
    text = VALID.replace("window = 8", f"window = 8\nearliest = {written}")
    assert parse_domain(text, "mine.toml").earliest_ms == 801_964_800_000
    assert parse_domain(VALID, "mine.toml").earliest_ms == 631_152_000_000


def test_text_that_is_not_toml_is_reported_with_its_place() -> None:
    with pytest.raises(DomainError, match=r"mine\.toml: \(file\): not TOML: .*line 3"):
        parse_domain('name = "mine"\n\nwindow ==', "mine.toml")


def test_no_intent_is_refused() -> None:
    with pytest.raises(DomainError, match="no field is an intent"):
        parse_domain(VALID.replace("intent = true", "intent = false").partition("[[filter]]")[0], "mine.toml")


def test_a_name_that_is_neither_shipped_nor_a_file_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"no domain films: .*movielens, movietweetings, shop, video"):
        load_domain("films")


def test_a_file_of_ones_own_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(VALID, "utf-8")

    assert load_domain(path).name == "mine"


def test_the_fingerprint_changes_when_stored_plays_would_mean_something_else() -> None:
    base = parse_domain(VALID, "mine.toml").fingerprint

    assert parse_domain(VALID.replace("window = 8", "window = 9"), "mine.toml").fingerprint != base
    assert (
        parse_domain(
            VALID.replace(
                'kind = "categorical"\nsource = "event"', 'kind = "categorical"\nsource = "event"\nkey = "act"'
            ),
            "mine.toml",
        ).fingerprint
        != base
    )
    assert parse_domain(VALID.replace('["play", "skip"]', '["skip", "play"]'), "mine.toml").fingerprint != base
    assert parse_domain(VALID.replace("window = 8", "window = 8\nsession_gap_s = 60"), "mine.toml").fingerprint != base
    assert parse_domain(VALID.replace('["a", "b"]', '["a", "b", "c"]'), "mine.toml").fingerprint == base


def test_edges_that_look_alike_give_labels_of_different_names() -> None:
    text = VALID.replace("edges = [7, 30]", "edges = [1000000, 1000001]").replace(
        'labels = ["new", "recent", "old"]\n', ""
    )
    (age,) = (field for field in parse_domain(text, "mine.toml").fields if field.name == "age")
    assert len(set(age.label_names)) == 3
