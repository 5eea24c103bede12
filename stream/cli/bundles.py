"""``intentrec bundle``: builds a bundle of a saved model, lists, shows and verifies bundles, and goes back to an older one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.errors import ConfigError, DataError
from stream.cli import options
from stream.cli.progress import bars, notes, print_warnings, results
from stream.cli.tables import print_table

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.bundle.format import Manifest
    from intentrec_core.bundle.model_folder import Model
    from intentrec_core.bundle.store import BundleStore

group = typer.Typer(
    help="Build bundles and look at them: weights, vocabulary and index under one version.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION|latest", help="A version, as `intentrec bundle list` shows it, or its first characters."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the group to the command tree."""
    app.add_typer(group, name="bundle", rich_help_panel="Streaming")


@group.callback()
def _bundle() -> None:
    """Build bundles and look at them: weights, vocabulary and index under one version."""


@group.command(
    "build",
    epilog="[bold]Examples[/bold]\n\n  intentrec bundle build model --plays my/folder\n\n"
    "  intentrec bundle build model --announce --broker kafka:9092    ... and let every worker serve it",
)
def build(
    model_folder: Annotated[
        Path, typer.Argument(metavar="MODEL_FOLDER", help="What Model.save of the Python library wrote.")
    ],
    plays: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER|NAME",
            help="All plays known: Parquet, a folder with plays.parquet, or movielens-100k. "
            "Default: movielens-100k, for a model of the domain movielens.",
        ),
    ] = None,
    index: options.Index = None,
    bundles: options.Bundles = None,
    announce: Annotated[bool, typer.Option("--announce", help="Tell the workers on the broker to serve it.")] = False,
    broker: options.Broker = None,
    cache_dir: options.CacheDir = None,
) -> None:
    """Build a bundle that workers serve from a model that was trained with the library.

    It adds what serving needs and training does not: item vectors, their index,
    golden queries, and what is popular in the last week of the plays. The bundle
    is verified and put into the store.
    """
    from intentrec_core.bundle.model_folder import load_model
    from stream.cli.bundle_store import announce_bundle, publish_bundle
    from stream.cli.data_source import MOVIELENS, load_plays

    settings = options.settings(broker=broker, bundle_url=bundles, cache_dir=cache_dir, index=index)
    out = results()
    model = load_model(model_folder, device="cpu")
    if plays is None and model.domain.name != "movielens":
        raise ConfigError(
            f"{model_folder} is a model of the domain {model.domain.name}: name its plays, for their popularity, with "
            "--plays FILE|FOLDER"
        )
    with bars() as report:
        known_plays = load_plays(plays or MOVIELENS, settings.cache_dir, report, model.domain)
        _refuse_other_items(model, known_plays)
        report("encoding items, building the index, writing the bundle", 0, 0)
        built = publish_bundle(settings, model, known_plays)
    print_warnings(built.warnings)
    out.print(f"[bold]{built.line()}[/bold], in {settings.bundle_url}", soft_wrap=True)
    if announce:
        announce_bundle(settings, built.ref.version, reason="built")
        out.print(f"announced on {settings.model_updates_topic} of {settings.broker}", soft_wrap=True)


def _refuse_other_items(model: Model, plays: pa.Table) -> None:
    """Plays of another data set would make a bundle that verifies, and knows nothing of what is popular."""
    if plays.num_rows and not any(map(model.vocabulary.row, plays.column("item_id").unique().to_pylist())):
        raise DataError("no play is of an item that the model knows: give the plays it was trained on, and later ones")


@group.command("list", epilog="[bold]Examples[/bold]\n\n  intentrec bundle list --bundles s3://my-bucket/bundles")
def list_bundles(bundles: options.Bundles = None, cache_dir: options.CacheDir = None) -> None:
    """List the bundles of the store, the newest first.

    Other commands take a version by its first characters too, as long as no other version
    starts with them.
    """
    from intentrec_core.times import iso_time
    from stream.cli.bundle_store import open_store

    settings = options.settings(bundle_url=bundles, cache_dir=cache_dir)
    store = open_store(settings)
    manifests, unfinished = store.list(), store.unfinished()
    out = results()
    for version, written in unfinished.items():
        notes().print(
            f"{version} is half published, last written to at {iso_time(int(written.timestamp() * 1000))}: no worker takes it. "
            "It is removed when a bundle is published a day after that",
            soft_wrap=True,
        )
    if not manifests:
        out.print(f"no bundle at {settings.bundle_url}: write one with `intentrec train`", soft_wrap=True)
        return
    rows = [
        (
            manifest.version,
            manifest.created_at[:19].replace("T", " "),
            _number(manifest.facts.get("num_items")),
            _number(manifest.facts.get("num_plays")),
            manifest.parent or "–",
            f"{manifest.metrics['hr_at_10']:.4f}" if "hr_at_10" in manifest.metrics else "–",
        )
        for manifest in manifests
    ]
    columns = ("version", "built", "items", "plays", "parent", "HR@10")
    print_table(columns, rows, right=("items", "plays", "HR@10"))


@group.command("inspect", epilog="[bold]Examples[/bold]\n\n  intentrec bundle inspect latest")
def inspect(version: Version, bundles: options.Bundles = None, cache_dir: options.CacheDir = None) -> None:
    """Show a bundle's manifest: files, metrics and parents."""
    from stream.cli.bundle_store import open_store, resolve

    store = open_store(options.settings(bundle_url=bundles, cache_dir=cache_dir))
    lineage = list(store.lineage(resolve(store, version)))
    manifest = lineage[0]
    out = results()
    built = f"built {manifest.created_at} by intentrec {manifest.code_version}"
    out.print(f"[bold]{manifest.version}[/bold]  {built}", soft_wrap=True)
    parents = " ← ".join(parent.version for parent in lineage[1:])
    out.print(f"parents  {parents or manifest.parent or 'none'}", soft_wrap=True)
    for name, value in {**_facts(manifest), **manifest.metrics}.items():
        shown = f"{value:,.4f}" if isinstance(value, float) else str(value)
        out.print(f"{name:<22} {shown}", markup=False, soft_wrap=True)
    files = [(file, f"{entry.num_bytes:,}", entry.sha256) for file, entry in manifest.files.items()]
    print_table(("file", "bytes", "SHA-256"), files, right=("bytes",))


@group.command("profile", epilog="[bold]Examples[/bold]\n\n  intentrec bundle profile latest")
def profile(version: Version, bundles: options.Bundles = None, cache_dir: options.CacheDir = None) -> None:
    """Show what plays and catalogue said to each field and filter when a bundle was built,
    what is doubtful about it, and how far it is from its parent's.
    """
    from intentrec_core.plays.drift import drift
    from intentrec_core.plays.findings import findings
    from stream.cli.bundle_store import data_profile, open_store, resolve

    store = open_store(options.settings(bundle_url=bundles, cache_dir=cache_dir))
    manifest, *parents = store.lineage(resolve(store, version))
    found = data_profile(store, manifest)
    if found is None:
        raise ConfigError(f"bundle {manifest.version} has no data profile: an earlier release built it")
    domain, measured = found
    out = results()
    for line in measured.lines():
        out.print(line, markup=False, soft_wrap=True)
    before = data_profile(store, parents[0]) if parents else None
    if before is not None:
        moved = drift(domain, before[1], measured)
        figures = "  ".join(f"{name} {ratio:.1%}" for name, ratio in sorted(moved.items(), key=lambda one: -one[1]))
        out.print(f"drift from {parents[0].version}: {figures}", markup=False, soft_wrap=True)
    print_warnings(finding.text for finding in findings(domain, measured))


@group.command(
    "verify",
    epilog="[bold]Examples[/bold]\n\n  intentrec bundle verify latest\n\n  intentrec bundle verify b0123456789ab && echo sound",
)
def verify(version: Version, bundles: options.Bundles = None, cache_dir: options.CacheDir = None) -> None:
    """Check a bundle in the store as a worker does before serving it: every byte,
    shape, number and golden query.

    Exit code 4, and one line with what is wrong, when it must not serve.
    """
    import tempfile

    from intentrec_core.bundle.store import BundleStore
    from stream.bundles.verification import check_bundle
    from stream.cli.bundle_store import open_store, resolve

    settings = options.settings(bundle_url=bundles, cache_dir=cache_dir)
    found = resolve(open_store(settings), version)
    # Into an empty cache: this machine may hold a sound copy of what is damaged in the store.
    with tempfile.TemporaryDirectory(prefix="intentrec-verify-") as empty, bars() as report:
        report(f"verifying {found}", 0, 0)
        ref = BundleStore(settings.bundle_url, Path(empty)).fetch(found)
        loaded, index = check_bundle(ref.path)
    results().print(
        f"[green]sound[/green] {found}: {len(loaded.manifest.files)} files, {index.num_items:,} items, "
        f"{len(loaded.domain.heads)} intents, golden queries as expected",
        soft_wrap=True,
    )


@group.command(
    "rollback",
    epilog="[bold]Examples[/bold]\n\n  intentrec bundle rollback                   to the one before the newest announced\n\n"
    "  intentrec bundle rollback b0123456789ab     to this one; its first characters are enough",
)
def rollback(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Default: the parent of the bundle announced last.")
    ] = None,
    broker: options.Broker = None,
    bundles: options.Bundles = None,
    cache_dir: options.CacheDir = None,
) -> None:
    """Have every worker serve an older bundle: a new announcement that names it. It is verified first."""
    from stream.bundles.verification import check_bundle
    from stream.cli.bundle_store import announce_bundle, newest_announced, open_store, resolve

    settings = options.settings(broker=broker, bundle_url=bundles, cache_dir=cache_dir)
    store = open_store(settings)
    with bars() as report:
        report(f"reading announcements on {settings.broker}", 0, 0)
        current = newest_announced(settings)
        target = resolve(store, version) if version else _parent(current, store)
        report(f"verifying {target}", 0, 0)
        check_bundle(store.fetch(target))
        number = announce_bundle(settings, target, reason="rollback", parent=current)
    results().print(f"announcement {number}: workers go back to [bold]{target}[/bold]", soft_wrap=True)


def _parent(current: str | None, store: BundleStore) -> str:
    if current is None:
        raise ConfigError("no bundle was announced yet: name the version to serve")
    parents = [manifest.version for manifest in store.lineage(current)][1:2]
    if not parents:
        raise ConfigError(f"bundle {current} has no parent in the store: name the version to go back to")
    return parents[0]


def _facts(manifest: Manifest) -> dict[str, str | int | float]:
    from intentrec_core.times import iso_time

    return {
        name.removesuffix("_ms"): iso_time(int(value)) if name.endswith("_ms") else value
        for name, value in manifest.facts.items()
    }


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"
