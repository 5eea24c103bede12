"""IntentRec as a library: train on plays, predict members' intents, recommend, save.

    import intentrec_core as intentrec

    data = intentrec.load_movielens()
    model = intentrec.fit(data.plays, data.catalogue, domain="movielens", epochs=1)
    live = intentrec.LiveEncoder(model, cache_bytes=256 << 20)
    now = live.play("u7", "50", ts_ms=1_772_396_100_000, attributes={"rating": "5"})
    print(now.intents["genre"]["Drama"], now.primary, now.recommend(k=1))
    model.save("model"); intentrec.load("model")

The names below are the public ones. Each is imported at its first use, so that an import of this package, or of
``intentrec_core.errors``, loads neither torch nor any other large library. Models and training need torch
(``pip install 'intentrec[torch]'``); tables, domains and errors do not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from intentrec_core.device import INSTALL_TORCH

if TYPE_CHECKING:
    from intentrec_core.bundle.model_folder import Model
    from intentrec_core.bundle.model_folder import load_model as load
    from intentrec_core.datasets.movielens import MovieLens, load_movielens
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.engine.live import LiveEncoder, LiveUpdate, Primary, ScoredItem
    from intentrec_core.engine.live_play import LiveOutcome, LivePlay
    from intentrec_core.errors import ConfigError, DataError, IntentRecError
    from intentrec_core.features.catalogue import Catalogue, Item
    from intentrec_core.model.config import ModelConfig
    from intentrec_core.training.config import TrainConfig
    from intentrec_core.training.first_model import fit

__all__ = [
    "Catalogue",
    "ConfigError",
    "DataError",
    "IntentRecError",
    "Item",
    "LiveEncoder",
    "LiveOutcome",
    "LivePlay",
    "LiveUpdate",
    "Model",
    "ModelConfig",
    "MovieLens",
    "Primary",
    "ScoredItem",
    "TrainConfig",
    "fit",
    "load",
    "load_domain",
    "load_movielens",
]

#: Where each name is defined, and what it is called there.
_PLACES = {
    "Catalogue": ("features.catalogue", "Catalogue"),
    "ConfigError": ("errors", "ConfigError"),
    "DataError": ("errors", "DataError"),
    "IntentRecError": ("errors", "IntentRecError"),
    "Item": ("features.catalogue", "Item"),
    "LiveEncoder": ("engine.live", "LiveEncoder"),
    "LiveOutcome": ("engine.live_play", "LiveOutcome"),
    "LivePlay": ("engine.live_play", "LivePlay"),
    "LiveUpdate": ("engine.live", "LiveUpdate"),
    "Model": ("bundle.model_folder", "Model"),
    "ModelConfig": ("model.config", "ModelConfig"),
    "MovieLens": ("datasets.movielens", "MovieLens"),
    "Primary": ("engine.live", "Primary"),
    "ScoredItem": ("engine.live", "ScoredItem"),
    "TrainConfig": ("training.config", "TrainConfig"),
    "fit": ("training.first_model", "fit"),
    "load": ("bundle.model_folder", "load_model"),
    "load_domain": ("domain.toml", "load_domain"),
    "load_movielens": ("datasets.movielens", "load_movielens"),
}


def __getattr__(name: str) -> Any:
    """A public name at its first use (PEP 562); afterwards it is an ordinary attribute."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
    module, attribute = _PLACES[name]
    try:
        found = getattr(import_module(f"{__name__}.{module}"), attribute)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(f"{__name__}.{name} needs torch: {INSTALL_TORCH}", name="torch") from error
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
