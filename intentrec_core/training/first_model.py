"""A first model from plays at rest: vocabulary, features, training, and the comparison with the references.

What `intentrec train`, `intentrec eval` and the demo have in common. Nothing here talks to a person, a broker or a bundle store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from intentrec_core.errors import DataError
from intentrec_core.evaluation.comparison import Comparison
from intentrec_core.evaluation.report import compare
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.model import ModelConfig
from intentrec_core.plays.table import PLAYS
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.domain.spec import Domain
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.training.reports import EpochCallback, ProgressCallback, Trained


@dataclass(frozen=True)
class FirstModel:
    """A trained model and everything that a bundle of it needs."""

    domain: Domain
    vocabulary: Vocabulary
    catalogue: Catalogue
    table: ItemTable
    features: FeatureBuilder
    trained: Trained
    plays: pa.Table


def learn(
    domain: Domain,
    plays: pa.Table,
    catalogue: Catalogue,
    config: TrainConfig,
    *,
    model_config: ModelConfig | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    epoch_done: EpochCallback | None = None,
) -> FirstModel:
    """Trains on ``plays``; rows go to the items played, in the order of their first play.

    Raises: DataError when there is nothing to learn from.
    """
    if not plays.num_rows:
        raise DataError("no plays to learn from: give more, or a larger share")
    played = dict.fromkeys(plays.column(PLAYS.get_field_index("item_id")).to_pylist())
    vocabulary = Vocabulary.build(played)
    table = ItemTable(domain, vocabulary, catalogue)
    features = FeatureBuilder(domain, vocabulary, table)
    trained = train(
        plays,
        features,
        table,
        config,
        model_config=model_config or ModelConfig(),
        device=device,
        progress=progress,
        epoch_done=epoch_done,
    )
    return FirstModel(domain, vocabulary, catalogue, table, features, trained, plays)


def compare_with_references(
    first: FirstModel, all_plays: pa.Table, cut_ms: int, without_intent: FirstModel | None, seed: int
) -> Comparison:
    """The evaluation on the plays from ``cut_ms`` on, beside popularity, Markov and the model without the intent stage."""
    return compare(
        first.trained.model,
        first.features,
        all_plays,
        cut_ms=cut_ms,
        without_intent=without_intent.trained.model if without_intent else None,
        seed=seed,
    )
