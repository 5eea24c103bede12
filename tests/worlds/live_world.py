"""A model of the small world as the library holds it, without training."""

from __future__ import annotations

from intentrec_core.bundle.model_folder import Model
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld


def tiny_model(world: TinyWorld, seed: int = 1, *, intent_stage: bool = True, own_items: bool = False) -> Model:
    """A model with random weights."""
    return Model(
        network=world.model(seed, intent_stage=intent_stage, own_items=own_items),
        domain_text=DOMAIN.format(window=world.window),
        vocabulary=world.vocabulary,
        catalogue=world.catalogue,
        item_table=world.table,
        trained_until_ms=START_MS,
    )
