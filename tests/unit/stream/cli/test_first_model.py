"""What a domain declares for a first model arrives wherever one is trained; options come before it. Nothing is trained here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from intentrec_core.domain.toml import domain_text, load_domain
from intentrec_core.errors import DataError
from intentrec_core.experiment import learner
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.simulation.simulate import World
from intentrec_core.training import first_model
from intentrec_core.training.config import TrainConfig
from stream.cli import root
from stream.cli.data_source import load_data
from stream.cli.world_folder import write_world
from stream.demo.first_bundle import first_bundle
from stream.settings import Settings

Settled = tuple[TrainConfig, ModelConfig]
COMMANDS = ("train", "eval")


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Settled]:
    """The settings of each training run, which ends before its first step."""
    runs: list[Settled] = []

    def end(_members: object, _features: object, _table: object, config: TrainConfig, **options: object) -> None:
        start = options.get("start")  # `eval` makes the model before it is trained, and has a patience of its own
        model_config = start.config if isinstance(start, IntentRec) else options["model_config"]
        assert isinstance(model_config, ModelConfig)
        runs.append((dataclasses.replace(config, patience=TrainConfig().patience), model_config))
        raise DataError("nothing is trained here")

    monkeypatch.setattr(first_model, "train", end)
    monkeypatch.setattr(learner, "train", end)
    return runs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plays and items of the domain ``shop``."""
    folder = tmp_path_factory.mktemp("world")
    write_world(World("shop", users=20, items=64, seed=1), folder, 300, lambda *_: None)
    return folder


@pytest.fixture
def domain(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(f"{domain_text('shop')}\n[first_model]\nepochs = 4\nown_items = true\n")
    return path


def begin(command: str, world: Path, domain: str | Path, *options: str) -> None:
    """Runs a command as far as its training."""
    assert root.run([command, "--data", str(world), "--domain", str(domain), "--device", "cpu", *options]) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_trains_as_the_domain_declares(command: str, begun: list[Settled], world: Path, domain: Path) -> None:
    begin(command, world, domain)
    begin(command, world, "shop")
    assert begun == [(TrainConfig(epochs=4), ModelConfig(own_items=True)), (TrainConfig(), ModelConfig())]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_comes_before_what_the_domain_declares(
    command: str, begun: list[Settled], world: Path, domain: Path
) -> None:
    begin(command, world, domain, "--epochs", "2", "--no-own-items", "--seed", "3")
    begin(command, world, domain, "--width", "32", "--seconds", "5")
    begin(command, world, "shop", "--own-items", "--kv-heads", "1")
    assert begun == [
        (TrainConfig(epochs=2, seed=3), ModelConfig()),
        (TrainConfig(epochs=4, max_seconds=5.0), ModelConfig(width=32, own_items=True)),
        (TrainConfig(), ModelConfig(own_items=True, num_kv_heads=1)),
    ]


def test_the_demos_first_bundle_is_trained_as_the_domain_declares(
    begun: list[Settled], world: Path, domain: Path, tmp_path: Path
) -> None:
    settings = Settings.load(
        domain=str(domain), device="cpu", bundle_url=str(tmp_path / "store"), cache_dir=tmp_path / "cache"
    )
    data = load_data(str(world), tmp_path, lambda *_: None, load_domain(domain))
    with pytest.raises(DataError, match="nothing is trained here"):
        first_bundle(
            settings,
            data.plays,
            data.catalogue,
            seed=1,
            max_seconds=9.0,
            cache_dir=tmp_path,
            fresh=False,
            progress=lambda _: None,
        )
    assert begun == [(TrainConfig(epochs=4, max_seconds=9.0, seed=1), ModelConfig(own_items=True))]
