"""``intentrec train`` and ``intentrec eval``: trains a model, writes it as a bundle, and compares it with its references."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intentrec_core.errors import ConfigError
from intentrec_core.experiment.protocol_names import ProtocolName
from stream.cli import options
from stream.cli.progress import Report, bars, print_warnings, results, training_bars

if TYPE_CHECKING:
    from intentrec_core.bundle.model_folder import Model
    from intentrec_core.evaluation.comparison import Comparison
    from intentrec_core.model.config import ModelConfig
    from intentrec_core.training.config import TrainConfig
    from stream.cli.data_source import DataSet
    from stream.settings import Settings

_PANEL = "Data and learning"


Share = Annotated[float, typer.Option(min=0.01, max=1, help="Train on this share of the plays, the earliest ones.")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Passes over the plays. Default: what the domain declares, or 15.")
]
Seconds = Annotated[
    float | None, typer.Option(help="Stop training after this many seconds. Such a run is not repeatable.")
]
Width = Annotated[int | None, typer.Option(help="Width of the model.")]
Layers = Annotated[int | None, typer.Option(help="Layers in each of the two encoders.")]
KvHeads = Annotated[
    int | None,
    typer.Option(
        "--kv-heads",
        help="Heads of keys and values. 1: all heads share them, and a worker caches more members. Default: as many as heads.",
    ),
]
OwnItems = Annotated[
    bool | None,
    typer.Option(
        "--own-items/--no-own-items",
        help="Learn which of their own items members play again. Default: what the domain declares, or no.",
    ),
]
ItemCounts = Annotated[
    bool,
    typer.Option(
        "--item-counts",
        help="Learn how much it matters what is popular now. Workers score with the counts that a trainer writes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object on the last line.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command tree."""
    app.command(
        "train",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec train                                   MovieLens-100K, 70 % of it\n\n"
        "  intentrec train --announce --broker kafka:9092    and have every worker serve it\n\n"
        "  intentrec train --data world --domain video --epochs 5",
    )(train)
    app.command(
        "eval",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec eval                     MovieLens-100K: learn 70 %, ask for the rest\n\n"
        "  intentrec eval --protocol stream --report report.html --data world --domain video\n\n"
        "  intentrec eval --bundle latest     an existing bundle, on the plays after its training",
    )(evaluate)


def train(
    data: options.Data = "movielens-100k",
    data_root: options.DataRoot = None,
    domain: options.Domain = None,
    share: Share = 0.7,
    epochs: Epochs = None,
    seconds: Seconds = None,
    width: Width = None,
    layers: Layers = None,
    kv_heads: KvHeads = None,
    own_items: OwnItems = None,
    item_counts: ItemCounts = False,
    seed: options.Seed = 0,
    device: options.Device = None,
    bundles: options.Bundles = None,
    index: options.Index = None,
    references: Annotated[
        bool,
        typer.Option(
            "--references/--no-references",
            help="Compare with the references on the later plays. Trains a second model.",
        ),
    ] = True,
    announce: Annotated[
        bool, typer.Option("--announce", help="Announce the bundle on the broker: every worker serves it.")
    ] = False,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing if the store already has a bundle.")
    ] = False,
    broker: options.Broker = None,
    cache_dir: options.CacheDir = None,
) -> None:
    """Train a model on plays, print its learning curve and its quality, and write it as a
    bundle.

    First prints what plays and catalogue say to each field and filter of the domain. An
    intent without a known label, or a filter that hides everything, usually has a
    misspelt key, and ends the command.
    """
    from intentrec_core.device import require_torch
    from intentrec_core.plays.drift import warnings as drift_warnings
    from stream.cli.bundle_store import announce_bundle, newest_announced, newest_bundle, open_store, publish_bundle

    settings = options.settings(
        domain=domain, device=device, bundle_url=bundles, broker=broker, cache_dir=cache_dir, index=index
    )
    out = results()
    if if_missing and (present := newest_bundle(settings)) is not None:
        out.print(f"{settings.bundle_url} has bundle {present}: nothing to do", soft_wrap=True)
        return
    require_torch()
    open_store(settings).check_writable()
    if announce:
        newest_announced(settings)  # a broker that is away, or lacks the topic, is found before the work
    with bars() as report:
        data_set = _load(data, settings, report, data_root)
    _check_index(settings, data_set, share)
    _print_profile(settings, data_set, share)
    config = _config(settings, seed=seed, epochs=epochs, max_seconds=seconds)
    model_config = _model_config(
        settings, width=width, num_layers=layers, num_kv_heads=kv_heads, own_items=own_items, item_counts=item_counts
    )
    model = _learn(settings, data_set, share, config, model_config)
    metrics: dict[str, Any] = {}
    if references and share < 1:
        compared = _compare(settings, data_set, share, config, model_config, model)
        _print_comparison(compared)
        metrics = _headline(compared)
    with bars() as report:
        report("encoding items, building the index, writing the bundle", 0, 0)
        built = publish_bundle(settings, model, data_set.earliest(share), metrics)
    print_warnings(drift_warnings(built.drift))
    out.print(f"[bold]{built.line()}[/bold], in {settings.bundle_url}", soft_wrap=True)
    if announce:
        announce_bundle(settings, built.ref.version, reason="trained")
        out.print(f"announced on {settings.model_updates_topic} of {settings.broker}", soft_wrap=True)


def evaluate(
    data: options.Data = "movielens-100k",
    data_root: options.DataRoot = None,
    domain: options.Domain = None,
    bundle: Annotated[
        str | None,
        typer.Option(metavar="VERSION|latest", help="Evaluate this bundle instead of training a model."),
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option("--protocol", help="Which plays are predicted, and what is known at each: docs/evaluation.md."),
    ] = ProtocolName.TEMPORAL,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="The earliest plays, before the test: this share of all.")
    ] = 0.7,
    refresh_plays: Annotated[
        int, typer.Option(min=1, help="Refresh the weights every so many plays, with --protocol stream.")
    ] = 4_000,
    freshness: Annotated[
        list[int] | None,
        typer.Option(
            "--freshness",
            min=0,
            metavar="PLAYS",
            help="With --protocol stream: also measure with a refresh every PLAYS plays; 0: none. Repeatable.",
        ),
    ] = None,
    validation: Annotated[
        bool,
        typer.Option(
            "--validation/--no-validation",
            help="Choose the epoch and the chains' settings on plays before the test. Without it: all epochs, plain settings.",
        ),
    ] = True,
    target_time: Annotated[
        bool,
        typer.Option("--known-time/--unknown-time", help="Counts as of the play asked for, or of the play before it."),
    ] = True,
    hide_played: Annotated[
        bool | None,
        typer.Option(
            "--hide-played/--show-played", help="Hide what a member played before. Default: as the domain does."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="MODEL",
            help="Train it too: no-intent (default), multi-task, sasrec, gru, none. Repeatable.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Train with so many seeds, from --seed on.")] = 1,
    epochs: Epochs = None,
    seconds: Seconds = None,
    width: Width = None,
    layers: Layers = None,
    kv_heads: KvHeads = None,
    own_items: OwnItems = None,
    item_counts: ItemCounts = False,
    seed: options.Seed = 0,
    device: options.Device = None,
    bundles: options.Bundles = None,
    cache_dir: options.CacheDir = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results, with pictures, as one HTML file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Rank every item for every later play, and compare IntentRec with popularity, Markov
    chains and other models, all by one protocol.

    temporal learns what is before one moment and is asked for all plays after it;
    leave-one-out is asked for each member's last play; stream is asked for every play
    before it is learned, with the weights refreshed as the trainer does it. Epochs and
    settings are chosen on a validation before the test.
    """
    from stream.cli.evaluation import (
        Asked,
        check_report,
        evaluate_bundle,
        evaluate_models,
        print_evaluation,
        write_report,
    )

    if bundle is not None:
        learning = {
            "epochs": epochs,
            "seconds": seconds,
            "width": width,
            "layers": layers,
            "kv-heads": kv_heads,
            "own-items": own_items,
            "item-counts": item_counts or None,
            "against": against,
            "seeds": seeds if seeds > 1 else None,
            "freshness": freshness,
            "protocol": protocol.value if protocol is not ProtocolName.TEMPORAL else None,
        }
        _refuse_with_a_bundle([name for name, value in learning.items() if value is not None])
    settings = options.settings(domain=domain, device=device, bundle_url=bundles, cache_dir=cache_dir)
    if report is not None:
        check_report(report)
    with bars() as loading:
        data_set = _load(data, settings, loading, data_root)
    asked = Asked(
        protocol=protocol,
        share=share,
        refresh_plays=refresh_plays,
        chooses=validation,
        knows_time=target_time,
        hides_played=hide_played,
        freshness=freshness or (),
    )
    if bundle is not None:
        found = evaluate_bundle(settings, data_set, bundle, asked)
    else:
        config = _config(settings, seed=seed, epochs=epochs, max_seconds=seconds)
        model_config = _model_config(
            settings,
            width=width,
            num_layers=layers,
            num_kv_heads=kv_heads,
            own_items=own_items,
            item_counts=item_counts,
        )
        found = evaluate_models(
            settings, data_set, asked, config, model_config, against=against or ["no-intent"], num_seeds=seeds
        )
    print_evaluation(found)
    if report is not None:
        write_report(report, found)
    if as_json:
        print(json.dumps(found.to_dict()))


def _refuse_with_a_bundle(given: list[str]) -> None:
    if given:
        raise ConfigError(f"--{given[0]} is for training, and --bundle evaluates without it; leave out one of the two")


def _load(source: str, settings: Settings, report: Report, data_root: Path | None) -> DataSet:
    from intentrec_core.domain.toml import load_domain
    from stream.cli.data_source import load_data

    return load_data(source, settings.cache_dir, report, load_domain(settings.domain), data_root=data_root)


def _check_index(settings: Settings, data_set: DataSet, share: float) -> None:
    """Refuses a kind of index that these plays are too few for, before training."""
    from stream.bundles.builder import check_index_kind

    plays = data_set.earliest(share)
    check_index_kind(settings.index, len(plays.column("item_id").unique()), plays)


def _print_profile(settings: Settings, data_set: DataSet, share: float) -> None:
    """Prints what the plays to train on say to each field and filter, and what is doubtful, before training starts.

    Raises: DataError when the data make an intent or a filter meaningless.
    """
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.features.features import FeatureBuilder
    from intentrec_core.features.vocabulary import ItemTable, Vocabulary
    from intentrec_core.plays.findings import findings, refuse_meaningless
    from intentrec_core.plays.profile import measure

    domain, plays = load_domain(settings.domain), data_set.earliest(share)
    print_warnings(left_out.line() for left_out in data_set.catalogue.left_out)
    vocabulary = Vocabulary.build(plays.column("item_id").unique().to_pylist())
    table = ItemTable(domain, vocabulary, data_set.catalogue)
    profile = measure(FeatureBuilder(domain, vocabulary, table), table, plays)
    out = results()
    for line in profile.lines():
        out.print(line, markup=False, soft_wrap=True)
    print_warnings(finding.text for finding in findings(domain, profile) if not finding.is_error)
    refuse_meaningless(domain, profile, settings.domain)


def _config(settings: Settings, **given: Any) -> TrainConfig:
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.training.config import TrainConfig

    return TrainConfig.for_domain(load_domain(settings.domain), **given)


def _model_config(settings: Settings, *, item_counts: bool, **given: Any) -> ModelConfig:
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.model.config import ModelConfig

    if item_counts:  # as old as those that a worker has
        given["count_refresh_s"] = settings.item_counts_refresh_s
    return ModelConfig.for_domain(load_domain(settings.domain), item_counts=item_counts, **given)


def _learn(
    settings: Settings, data_set: DataSet, share: float, config: TrainConfig, model_config: ModelConfig
) -> Model:
    from intentrec_core.training.first_model import fit

    plays = data_set.earliest(share)
    if not plays.num_rows:
        raise ConfigError(f"--share {share} of {data_set.plays.num_rows:,} plays is no play; choose a larger share")
    title = "training IntentRec" if model_config.intent_stage else "training the reference without the intent stage"
    title += " with own items" if model_config.own_items else ""
    with training_bars(f"{title} on {plays.num_rows:,} plays", show_curve=True) as (progress, epoch_done):
        return fit(
            plays,
            data_set.catalogue,
            domain=settings.domain,
            config=config,
            model_config=model_config,
            device=settings.device,
            progress=progress,
            epoch_done=epoch_done,
        )


def _compare(
    settings: Settings,
    data_set: DataSet,
    share: float,
    config: TrainConfig,
    model_config: ModelConfig,
    model: Model,
) -> Comparison:
    from intentrec_core.training.first_model import compare_with_references

    without = _learn(settings, data_set, share, config, dataclasses.replace(model_config, intent_stage=False))
    cut_ms = data_set.rest(share).column("ts_ms")[0].as_py()
    with bars() as report:
        report("ranking every item for every later play", 0, 0)
        return compare_with_references(model, data_set.plays, cut_ms, without, config.seed)


def _print_comparison(compared: Comparison) -> None:
    out = results()
    for line in compared.lines():
        out.print(line, markup=False, soft_wrap=True)


def _headline(compared: Comparison) -> dict[str, Any]:
    """The metrics that the bundle's manifest carries."""
    ours = compared.rankers[0].quality
    ranking = {"hr_at_10": ours.hr_at_10, "ndcg_at_10": ours.ndcg_at_10, "mrr": ours.mrr}
    return ranking | {f"accuracy_{head.name}": head.accuracy.estimate for head in compared.heads}
