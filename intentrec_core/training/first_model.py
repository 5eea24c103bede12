"""Trains a first model from a table of plays, and compares it with the references.

    plays ─┬─ all but the newest ─▶ train ─▶ network ─┐
           └─ the newest ─────────────────────────────┴▶ weight of successors

``fit`` is what the library's users, `intentrec train`, `intentrec eval` and the demo share. Nothing here talks to a person, a
broker or a bundle store.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from intentrec_core.bundle.model_folder import Model
from intentrec_core.domain.toml import domain_text, parse_domain
from intentrec_core.errors import DataError
from intentrec_core.evaluation.comparison import Comparison
from intentrec_core.evaluation.model_ranks import Contender
from intentrec_core.evaluation.report import compare
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.release_times import check_release_times
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.findings import refuse_meaningless
from intentrec_core.plays.members import MemberPlays, pack_members
from intentrec_core.plays.profile import measure
from intentrec_core.plays.table import PLAYS, check_plays
from intentrec_core.successors import Successors
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.train import train
from intentrec_core.training.weighing import MIN_TARGETS, num_targets, weigh_successors

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.domain.spec import Domain
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.training.reports import EpochCallback, ProgressCallback, Trained

#: How many of the plays, the newest, choose the weight of successors.
HELD_OUT_RATIO, MAX_HELD_OUT = 0.05, 4_000


@dataclass(frozen=True)
class FirstModel:
    """What training from nothing gives: the network in ``trained``, the rows of the items that were played, and what usually
    follows each.

    ``trained_until_ms`` is the event time up to which the network has learned, excluded (milliseconds since 1970).
    """

    vocabulary: Vocabulary
    table: ItemTable
    trained: Trained
    successors: Successors
    trained_until_ms: int


def fit(
    plays: pa.Table,
    catalogue: Catalogue,
    *,
    domain: str | Path,
    epochs: int | None = None,
    seed: int | None = None,
    config: TrainConfig | None = None,
    model_config: ModelConfig | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    epoch_done: EpochCallback | None = None,
) -> Model:
    """Trains a model on ``plays``, from nothing, to predict the intents and the item of every next play.

    ``plays`` is an Arrow table with one row a play, in any order. Columns: event_id, user_id, item_id (text) and ts_ms
    (milliseconds since 1970, or a timestamp type); optional: action, session_id (text), duration_s (seconds), context (map of
    text to text).
    ``domain`` is the name of a shipped domain (movielens, video, shop …) or the path of a domain file. ``config`` is a
    :class:`~intentrec_core.training.config.TrainConfig`, whose ``epochs`` and ``seed`` the arguments of that name replace;
    ``model_config`` is a :class:`~intentrec_core.model.config.ModelConfig`. One that is not given is what ``[first_model]`` of
    the domain declares. One that is given is taken as it is; ``for_domain`` of its class makes one of what is declared and given.
    ``device`` is ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. ``progress`` is called after each step,
    ``epoch_done`` after each epoch.

    The network does not learn the newest plays, a twentieth of them and at most 4,000: they choose the weight of
    :mod:`~intentrec_core.successors` beside the trained score. Where fewer than 500 of them have an earlier play of their member,
    the network learns all plays, and the weight is 0.

    Rows go to the items that were played, in the order of their first play; an item without an entry in the catalogue has its
    id for a title and no fields. One seed gives one model on one machine, on the CPU and without ``config.max_seconds``.

    Raises: ConfigError for a domain, a setting or a device that is wrong, naming it and what is allowed; DataError for plays
    without a required column, with values of another type, or with nothing to learn from (training takes a member with two
    plays), for times of plays and releases of items that are in another unit, and for an intent without a known label or with
    one label alone, or a filter that hides everything.
    Cost: an epoch is one pass over the plays, some 13,000 a second with the default sizes on two CPU cores.
    """
    text = domain_text(domain)
    declared = parse_domain(text, str(domain))
    settings = config or TrainConfig.for_domain(declared)
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    if seed is not None:
        settings = dataclasses.replace(settings, seed=seed)
    catalogue = check_release_times(catalogue, declared)
    checked = check_plays(plays, earliest_ms=declared.earliest_ms)
    first = learn(
        declared,
        checked,
        catalogue,
        settings,
        model_config=model_config,
        device=device,
        progress=progress,
        epoch_done=epoch_done,
    )
    return Model(
        network=first.trained.model,
        domain_text=text,
        vocabulary=first.vocabulary,
        catalogue=catalogue,
        item_table=first.table,
        trained_until_ms=first.trained_until_ms,
        successors=first.successors,
    )


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
    """:func:`fit` for a parsed domain and checked plays (schema PLAYS, event-time order).

    Raises: DataError when there is nothing to learn from, a play has an empty item id or text where a number is declared, or
    the data make an intent or a filter of the domain meaningless (:mod:`intentrec_core.plays.findings`).
    """
    if not plays.num_rows:
        raise DataError("no plays to learn from: give more, or a larger share")
    members = pack_members(EventLayout(domain), plays)
    until_ms = _learnt_until_ms(plays, members)
    learnt = plays.filter(pc.less(plays.column("ts_ms"), until_ms))
    vocabulary = Vocabulary.build(_played(learnt))
    table = ItemTable(domain, vocabulary, catalogue)
    features = FeatureBuilder(domain, vocabulary, table)
    refuse_meaningless(domain, measure(features, table, learnt))
    trained = train(
        pack_members(EventLayout(domain), learnt),
        features,
        table,
        config,
        model_config=model_config or ModelConfig.for_domain(domain),
        device=device,
        progress=progress,
        epoch_done=epoch_done,
    )
    vocabulary = vocabulary.extended(_played(plays))
    if len(vocabulary) > len(table):
        table = ItemTable(domain, vocabulary, catalogue)
        features = FeatureBuilder(domain, vocabulary, table)
        trained.model.grow(table)
    successors = weigh_successors(trained.model, features, members, from_ms=until_ms)
    return FirstModel(vocabulary, table, trained, successors, until_ms)


def _learnt_until_ms(plays: pa.Table, members: MemberPlays) -> int:
    """The event time from which plays are held out; that after the last where too few could be asked for."""
    ts_ms, num_held_out = plays.column("ts_ms"), min(MAX_HELD_OUT, int(plays.num_rows * HELD_OUT_RATIO))
    until_ms = int(ts_ms[plays.num_rows - num_held_out - 1].as_py()) + 1
    return until_ms if num_targets(members, until_ms) >= MIN_TARGETS else int(ts_ms[plays.num_rows - 1].as_py()) + 1


def _played(plays: pa.Table) -> list[str]:
    """The items, in the order of their first play."""
    return pc.unique(plays.column(PLAYS.get_field_index("item_id"))).to_pylist()


def compare_with_references(
    model: Model, all_plays: pa.Table, cut_ms: int, without_intent: Model | None, seed: int
) -> Comparison:
    """The evaluation on the plays from ``cut_ms`` on, beside popularity, Markov and the model without the intent stage."""
    return compare(
        Contender(model.network, model.features, model.successors),
        all_plays,
        cut_ms=cut_ms,
        without_intent=Contender(without_intent.network, model.features, without_intent.successors)
        if without_intent
        else None,
        seed=seed,
    )
