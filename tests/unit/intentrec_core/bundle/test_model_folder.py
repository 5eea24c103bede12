"""A model's folder: it is read back as saved, every defect is named, and nothing foreign is replaced."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from intentrec_core import Model, load
from intentrec_core.bundle import format as bundle
from intentrec_core.bundle import model_folder
from intentrec_core.bundle.model_folder import CARD, MODEL_FILES
from intentrec_core.errors import ConfigError, DataError
from tests.worlds.live_world import tiny_model
from tests.worlds.tiny_world import START_MS, TinyWorld, random_successors


@pytest.fixture
def saved(world: TinyWorld, tmp_path: Path) -> Path:
    return tiny_model(world).save(tmp_path / "deep" / "model")


def assert_same(found: Model, model: Model) -> None:
    assert found.domain == model.domain
    assert found.domain_text == model.domain_text
    assert found.vocabulary == model.vocabulary
    assert found.catalogue == model.catalogue
    assert found.trained_until_ms == model.trained_until_ms
    assert not found.network.training
    assert found.network.config == model.network.config
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor)


def test_a_model_comes_back_as_it_was_saved(world: TinyWorld, saved: Path) -> None:
    assert_same(load(saved, device="cpu"), tiny_model(world))
    assert_same(load(str(saved)), tiny_model(world))
    assert load(saved).trained_until_ms == START_MS
    assert {path.name for path in saved.iterdir()} == {*MODEL_FILES, CARD}
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_successors_come_back_with_their_model_and_go_with_it(world: TinyWorld, saved: Path) -> None:
    successors = random_successors(len(world.vocabulary), weight=0.5)
    dataclasses.replace(tiny_model(world), successors=successors).save(saved)
    found = load(saved).successors
    assert found is not None
    assert found.weight == 0.5
    for name in ("starts", "rows", "counts", "totals"):
        np.testing.assert_array_equal(getattr(found.table, name), getattr(successors.table, name))
    tiny_model(world).save(saved)
    assert load(saved).successors is None
    assert {path.name for path in saved.iterdir()} == {*MODEL_FILES, CARD}


def test_saving_again_replaces_the_model_and_an_empty_folder(world: TinyWorld, saved: Path, tmp_path: Path) -> None:
    tiny_model(world, seed=2).save(saved)
    assert_same(load(saved), tiny_model(world, seed=2))
    (tmp_path / "empty").mkdir()
    tiny_model(world).save(tmp_path / "empty")
    assert_same(load(tmp_path / "empty"), tiny_model(world))
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "empty"}
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("foreign", ["notes.txt", ".hidden", bundle.MANIFEST, bundle.WEIGHTS])
def test_a_foreign_folder_is_not_replaced(world: TinyWorld, tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(ConfigError, match=f"holds {foreign} and is no saved model; allowed: a new folder"):
        tiny_model(world).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [foreign]


def test_a_saved_model_with_a_file_of_someone_else_is_not_replaced(world: TinyWorld, saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        tiny_model(world).save(saved)


def test_a_file_or_a_link_is_not_replaced(world: TinyWorld, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(saved)
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=f"{name} is no folder; allowed"):
            tiny_model(world).save(tmp_path / name)


def test_a_save_that_fails_leaves_the_model_that_was_there(
    world: TinyWorld, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folder, "rename_durably", full)
    with pytest.raises(DataError, match=r"model cannot be written: .*No space left"):
        tiny_model(world, seed=2).save(saved)
    assert_same(load(saved), tiny_model(world))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Changes a file, and what the card says of it: somebody who made the folder by hand."""
    (folder / name).write_bytes(content)
    card = json.loads((folder / CARD).read_bytes())
    entry = model_folder.file_entry(folder / name)
    card["files"][name] = {"sha256": entry.sha256, "num_bytes": entry.num_bytes}
    (folder / CARD).write_text(json.dumps(card))


def edit_card(folder: Path, **fields: object) -> None:
    card = json.loads((folder / CARD).read_bytes())
    (folder / CARD).write_text(json.dumps(card | fields))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / CARD).unlink(), "model is no saved model: saved_model.json cannot be read"),
        (lambda folder: (folder / CARD).write_text("{"), "saved_model.json is damaged"),
        (lambda folder: edit_card(folder, format=2), "saved_model.json has format 2, this code reads 1"),
        (lambda folder: edit_card(folder, files={}), "saved_model.json lists"),
        (lambda folder: edit_card(folder, more=1), "saved_model.json is damaged"),
        (lambda folder: (folder / bundle.WEIGHTS).unlink(), "weights.safetensors cannot be read"),
        (lambda folder: (folder / bundle.WEIGHTS).write_bytes(b"x"), "weights.safetensors has 1 bytes of SHA-256"),
        (lambda folder: rewrite(folder, bundle.WEIGHTS, b"x"), "is no sound model: shape: weights.safetensors: "),
        (lambda folder: rewrite(folder, bundle.MODEL, b'{"width": 3}'), "shape: model.json: model width is 3; allowed"),
        (lambda folder: rewrite(folder, bundle.DOMAIN, b"name = 3"), "is no sound model: domain: domain.toml: "),
        (lambda folder: rewrite(folder, bundle.VOCABULARY, b"x"), "vocabulary.parquet: not a vocabulary"),
        (lambda folder: rewrite(folder, bundle.ITEMS, b"x"), "items.parquet: "),
    ],
)
def test_whatever_is_wrong_with_a_folder_is_named(saved: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(saved)
    with pytest.raises(DataError) as refused:
        load(saved)
    assert said in str(refused.value)
    assert str(saved) in str(refused.value)


def test_a_folder_that_is_not_there_and_a_bundle_are_told_apart(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is no saved model"):
        load(tmp_path / "nowhere")
    (saved / CARD).rename(saved / bundle.MANIFEST)
    with pytest.raises(DataError, match="is a bundle that workers serve, not a saved model"):
        load(saved)


def test_weights_that_are_no_numbers_are_refused(world: TinyWorld, tmp_path: Path) -> None:
    broken = tiny_model(world)
    with torch.no_grad():
        broken.network.item.weight[3, 0] = float("nan")
    broken.save(tmp_path / "model")
    with pytest.raises(DataError, match=r"not_finite: weights\.safetensors: item\.weight"):
        load(tmp_path / "model")


def test_a_device_that_is_not_there_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="device 'tpu'"):
        load(saved, device="tpu")
