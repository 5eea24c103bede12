"""Options shared by several commands, and how they become settings. An option that is not given is read from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stream.settings import Settings

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker", metavar="HOST:PORT", help="Kafka brokers. Default: INTENTREC_BROKER, else 127.0.0.1:9092."
    ),
]
Domain = Annotated[
    str | None,
    typer.Option("--domain", metavar="NAME|FILE", help="A shipped domain (movielens, video, shop …), or a file."),
]
Bundles = Annotated[
    str | None, typer.Option("--bundles", metavar="URL", help="Bundle store: a folder or an fsspec URL.")
]
CacheDir = Annotated[Path | None, typer.Option("--cache-dir", help="Folder for downloads and caches.")]
Device = Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Device to compute on.")]
Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="KIND",
        help="Index: auto, FAISS's flat, hnsw, ivf or pq-refine, exact, pruned. Default: INTENTREC_INDEX, or auto.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random numbers: the same seed repeats the run.")]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", help="Port of /metrics, /livez and /readyz. 0: any free port.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME|FOLDER",
        help="movielens-100k, or a folder with plays.parquet and items.parquet (or items.jsonl).",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="FOLDER",
        help="Where --data movietweetings, beauty and kuairand-pure have their folders.",
    ),
]


def settings(**given: Any) -> Settings:
    """The settings, overridden by the given options; None means not given.

    Raises: ConfigError naming the setting and the allowed values.
    """
    from stream.settings import Settings

    return Settings.load(**{name: value for name, value in given.items() if value is not None})
