"""Options that several commands share, and how they become settings: what is not given stays with the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stream.settings import Settings

Broker = Annotated[
    str | None, typer.Option("--broker", metavar="HOST:PORT", help="Kafka to use. Default: INTENTREC_BROKER.")
]
Domain = Annotated[
    str | None,
    typer.Option("--domain", metavar="NAME|FILE", help="movielens, video, shop, or a domain file of your own."),
]
Bundles = Annotated[
    str | None, typer.Option("--bundles", metavar="URL", help="The bundle store: a folder or any fsspec URL.")
]
CacheDir = Annotated[Path | None, typer.Option("--cache-dir", help="Where fetched data is kept.")]
Device = Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")]
Seed = Annotated[int, typer.Option("--seed", help="Makes the run repeatable.")]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", help="Port of /metrics, /livez, /readyz; 0: any free one.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME|FOLDER",
        help="movielens-100k, or a folder with plays.parquet and items.parquet (or items.jsonl).",
    ),
]


def settings(**given: Any) -> Settings:
    """The settings with the options that were given; None means not given.

    Raises: ConfigError naming the setting and what is allowed.
    """
    from stream.settings import Settings

    return Settings.load(**{name: value for name, value in given.items() if value is not None})
