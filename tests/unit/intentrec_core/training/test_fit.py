"""``fit``: from a user's table of plays to a model, or an error that says what is wrong with the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import intentrec_core as intentrec
from intentrec_core.errors import ConfigError, DataError, DomainError
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.table import plays_table
from intentrec_core.successors import SuccessorTable
from intentrec_core.training import first_model, weighing
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.weighing import WEIGHTS
from tests.worlds.tiny_world import START_MS
from tests.worlds.trainer_world import DOMAIN_TEXT, TINY_MODEL, WalkingWorld

WALK = WalkingWorld()


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(DOMAIN_TEXT)
    return path


def fit(plays: pa.Table, domain: str | Path, **options: Any) -> intentrec.Model:
    return intentrec.fit(
        plays, WALK.catalogue, domain=domain, **({"epochs": 1, "model_config": TINY_MODEL, "device": "cpu"} | options)
    )


def test_a_model_knows_the_items_that_were_played_and_up_to_when(domain: Path) -> None:
    model = fit(WALK.plays(200), str(domain))
    assert model.domain == WALK.domain
    assert model.vocabulary.item_ids[1:] == list(dict.fromkeys(row.item_id for row in WALK.rows(200)))
    assert model.catalogue == WALK.catalogue
    assert model.trained_until_ms == START_MS + 199 * 30_000 + 1
    assert not model.network.training


def test_the_newest_plays_are_not_learnt_and_choose_the_weight_of_successors(
    domain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Item 19 is played for the first time among the plays that are held out.
    plays = plays_table([*WalkingWorld(num_items=19).rows(480), *WALK.rows(120, first=480)])
    learnt = fit(plays.slice(0, 450), domain)
    monkeypatch.setattr(first_model, "HELD_OUT_RATIO", 0.25)
    monkeypatch.setattr(first_model, "MIN_TARGETS", 100)
    monkeypatch.setattr(weighing, "MIN_TARGETS", 100)
    model = fit(plays, domain)
    assert model.trained_until_ms == learnt.trained_until_ms == START_MS + 449 * 30_000 + 1
    for name, tensor in learnt.network.state_dict().items():
        same = model.network.state_dict()[name]
        assert torch.equal(same[: len(tensor)], tensor), name
    assert model.vocabulary.extends(learnt.vocabulary)
    assert model.network.num_rows == len(model.vocabulary) == len(model.item_table) == 21
    assert "item-19" in model.vocabulary.item_ids[20:]
    members = pack_members(model.features.layout, plays.slice(0, 450))
    rows = model.features.rows(members.events["item_hash"])
    table = SuccessorTable.empty(21).counted(rows, members.member)
    assert model.successors is not None
    np.testing.assert_array_equal(model.successors.table.counts, table.counts)
    assert model.successors.weight in WEIGHTS[1:], "one epoch knows less than successors"


def test_plays_without_an_earlier_one_of_their_member_choose_nothing_and_are_learnt(
    domain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last 40 plays a quarter are a member's first: there are not enough to ask for."""
    monkeypatch.setattr(first_model, "HELD_OUT_RATIO", 0.2)
    for module in (first_model, weighing):
        monkeypatch.setattr(module, "MIN_TARGETS", 40)
    rows = [
        row._replace(user_id=f"new-{number}") if number >= 160 and number % 4 == 0 else row
        for number, row in enumerate(WALK.rows(200))
    ]
    model = fit(plays_table(rows), domain)
    assert model.trained_until_ms == START_MS + 199 * 30_000 + 1
    assert model.successors is not None
    assert model.successors.weight == 0


def test_few_plays_are_all_learnt_and_the_weight_of_successors_is_0(domain: Path) -> None:
    model = fit(WALK.plays(200), domain)
    assert model.successors is not None
    assert model.successors.weight == 0
    assert model.successors.table.totals.sum() > 0


def test_a_table_may_be_unordered_and_have_the_required_columns_alone(domain: Path) -> None:
    text, length = DOMAIN_TEXT.partition('[[filter]]\nkind = "at_most"')[0], "edges = [60.0, 600.0]\nintent = true"
    domain.write_text(text.replace(length, length.removesuffix("\nintent = true")))
    plays = WALK.plays(200).select(["item_id", "ts_ms", "user_id", "event_id"])
    backwards = plays.take(list(range(plays.num_rows))[::-1])
    for name, tensor in fit(plays, domain).network.state_dict().items():
        assert torch.equal(tensor, fit(backwards, domain).network.state_dict()[name])


def test_one_seed_gives_one_model_and_another_seed_another(domain: Path) -> None:
    plays = WALK.plays(200)
    first, again, other = (fit(plays, domain, seed=seed).network.item.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_epochs_and_seed_stand_in_for_those_of_the_config(domain: Path) -> None:
    reports: list[int] = []
    config = TrainConfig(epochs=9, seed=5)
    fit(WALK.plays(200), domain, config=config, epochs=2, epoch_done=lambda report: reports.append(report.epoch))
    assert reports == [1, 2]


@pytest.mark.parametrize(
    ("given", "epochs", "own_items"),
    [
        ({}, 2, True),
        ({"epochs": 1}, 1, True),
        ({"config": TrainConfig(epochs=1)}, 1, True),
        ({"model_config": TINY_MODEL}, 2, False),
    ],
    ids=["nothing", "epochs", "a config", "a model's config"],
)
def test_what_is_not_given_is_what_the_domain_declares(
    domain: Path, given: dict[str, Any], epochs: int, own_items: bool
) -> None:
    domain.write_text(f"{DOMAIN_TEXT}[first_model]\nepochs = 2\nown_items = true\n")
    reports: list[int] = []
    model = intentrec.fit(
        WALK.plays(60),
        WALK.catalogue,
        domain=domain,
        device="cpu",
        epoch_done=lambda report: reports.append(report.epoch),
        **given,
    )
    assert len(reports) == epochs
    assert model.network.config.own_items == own_items


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda plays: plays.slice(0, 0), DataError, "no plays to learn from"),
        (lambda plays: plays.slice(0, 1), DataError, "no member has two plays"),
        (
            lambda plays: with_column(plays, "event_id", ["one"] * 40),
            DataError,
            "no member has two plays with different event ids: 29 of 40 plays repeat the event_id of an earlier play",
        ),
        (
            lambda plays: with_column(plays, "duration_s", [30.0] * 20 + [-1.0] * 20),
            DataError,
            "plays: column duration_s: row 20: -1; allowed: seconds from 0",
        ),
        (lambda plays: plays.drop_columns(["item_id"]), DataError, "column item_id is missing: it is required"),
        (
            lambda plays: with_column(plays, "ts_ms", ["now"] * 40),
            DataError,
            "column ts_ms: row 0: 'now' cannot be read; allowed: ISO 8601",
        ),
        (
            lambda plays: with_column(plays, "item_id", [""] * 40),
            DataError,
            "column item_id: row 0: 0 bytes; allowed: 1",
        ),
        (lambda plays: with_column(plays, "user_id", [None] * 40), DataError, "user_id has 40 nulls"),
        (
            lambda plays: with_column(
                plays, "context", pa.array([[("max_maturity", "x")]] * 40, pa.map_(pa.string(), pa.string()))
            ),
            DataError,
            "plays: event_id 'event-0' of user 'member-8' at 2023-11-14T22:13:20.000Z, context max_maturity: 'x' is not",
        ),
    ],
)
def test_whatever_is_wrong_with_the_plays_is_named(
    domain: Path, change: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as refused:
        fit(change(WALK.plays(40)), domain)
    assert said in str(refused.value)


def with_column(plays: pa.Table, name: str, values: Any) -> pa.Table:
    return plays.drop_columns([name]).append_column(name, pa.array(values) if isinstance(values, list) else values)


def test_a_domain_or_a_setting_that_is_wrong_is_named(domain: Path) -> None:
    with pytest.raises(
        ConfigError, match="no domain cooking: give the path of a domain file, or one of beauty, kuairand, movielens"
    ):
        fit(WALK.plays(40), "cooking")
    domain.write_text('name = "Tiny"')
    with pytest.raises(DomainError, match=r"tiny\.toml"):
        fit(WALK.plays(40), domain)
    with pytest.raises(ConfigError, match="training epochs is 0; allowed: 1 to"):
        fit(WALK.plays(40), "video", epochs=0)
    domain.write_text(DOMAIN_TEXT)
    with pytest.raises(ConfigError, match="device 'tpu'"):
        fit(WALK.plays(40), domain, device="tpu")
