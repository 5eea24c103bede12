"""Loads what ``--data`` names, a public data set or a folder: plays in time order and their catalogue.

The times of plays are held to the limits that a worker would hold them to if they were sent now.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.times import EARLIEST_MS, END_MS
from stream.cli.progress import Report

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.domain.spec import Domain
    from intentrec_core.features.catalogue import Catalogue

MOVIELENS = "movielens-100k"
#: As far as a play may lie in the future where no domain says otherwise.
MAX_FUTURE_MS = 300_000


@dataclass(frozen=True)
class DataSet:
    """Plays (schema PLAYS, in time order), the catalogue of their items, and a title to display."""

    title: str
    plays: pa.Table
    catalogue: Catalogue

    def earliest(self, share: float) -> pa.Table:
        """The earliest ``share`` of the plays. Plays of the same millisecond are never split: they go to the rest."""
        return self._split(share)[0]

    def rest(self, share: float) -> pa.Table:
        """The plays after the earliest ``share``."""
        return self._split(share)[1]

    def _split(self, share: float) -> tuple[pa.Table, pa.Table]:
        from intentrec_core.evaluation.split import temporal_split

        if share in (0.0, 1.0):
            nothing = self.plays.slice(0, 0)
            return (nothing, self.plays) if share == 0.0 else (self.plays, nothing)
        split = temporal_split(self.plays, share)
        return split.train, split.test


def load_data(
    source: str, cache_dir: Path, report: Report, domain: Domain, *, data_root: Path | None = None
) -> DataSet:
    """Reads the data set that ``--data`` names, downloading it first if needed. ``domain`` says which times are possible,
    ``data_root`` where the sets are that cannot be downloaded.

    Raises: DataError if it cannot be downloaded or read, or if a time is in another unit; ConfigError if ``source`` is neither
    a known name nor a folder.
    """
    if source == MOVIELENS:
        from intentrec_core.datasets.movielens import fetch_movielens

        found = fetch_movielens(cache_dir, progress=report)
        return DataSet("MovieLens-100K", found.plays, found.catalogue)
    from intentrec_core.datasets.named import RECORDED_SETS, load_recorded

    if source in RECORDED_SETS:
        recorded = load_recorded(source, data_root)
        return DataSet(RECORDED_SETS[source].title, recorded.plays, recorded.catalogue)
    folder = Path(source)
    if not folder.is_dir():
        names = ", ".join([MOVIELENS, *RECORDED_SETS])
        raise ConfigError(f"--data {source}: allowed: {names}, or a folder with plays.parquet and items.parquet")
    return _load_folder(folder, domain)


def load_plays(source: str, cache_dir: Path, report: Report, domain: Domain) -> pa.Table:
    """Plays alone (schema PLAYS, in time order): of a known name, a Parquet file, or a folder with plays.parquet.

    Raises: DataError when they cannot be had; ConfigError when the source is none of these.
    """
    path = Path(source)
    if source == MOVIELENS:
        return load_data(source, cache_dir, report, domain).plays
    if not path.exists():
        raise ConfigError(
            f"--plays {source}: allowed: {MOVIELENS}, a Parquet file of plays, or a folder with plays.parquet"
        )
    return _read_plays(path / "plays.parquet" if path.is_dir() else path, domain)


def load_any_folder(folder: Path) -> DataSet:
    """Reads a folder for which there is no domain yet: its times are possible in a domain that says nothing of them.

    Raises: DataError when it cannot be read; ConfigError when there is no such folder.
    """
    from intentrec_core.features.catalogue import Catalogue

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder: write one with `intentrec import`")
    return DataSet(folder.name, _read_plays(folder / "plays.parquet", None), Catalogue.load(_items_of(folder)))


def _items_of(folder: Path) -> Path:
    items = next((path for name in ("items.parquet", "items.jsonl") if (path := folder / name).is_file()), None)
    if items is None:
        raise DataError(f"{folder}: add items.parquet or items.jsonl, with one row per item: item_id and title")
    return items


def _load_folder(folder: Path, domain: Domain) -> DataSet:
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.features.release_times import check_release_times

    items = _items_of(folder)
    plays, catalogue = _read_plays(folder / "plays.parquet", domain), Catalogue.load(items)
    try:
        catalogue = check_release_times(catalogue, domain)
    except DataError as error:
        raise DataError(f"{items}: {error}") from error
    return DataSet(folder.name, plays, catalogue)


def _read_plays(path: Path, domain: Domain | None) -> pa.Table:
    """Plays in time order; without a domain, what it would read of them is not looked at."""
    import pyarrow as pa

    from intentrec_core.history.history import EventLayout
    from intentrec_core.parquet import read_table
    from intentrec_core.plays.members import check_attributes
    from intentrec_core.plays.table import in_schema, sort_plays

    earliest_ms, max_future_ms = (domain.earliest_ms, domain.max_future_ms) if domain else (EARLIEST_MS, MAX_FUTURE_MS)
    end_ms = min(END_MS, time.time_ns() // 1_000_000 + max_future_ms + 1)
    try:
        plays = in_schema(read_table(path), earliest_ms=earliest_ms, end_ms=end_ms)
        if domain is not None:
            check_attributes(EventLayout(domain), plays)
        return sort_plays(plays)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
