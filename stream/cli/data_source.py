"""``--data``: a data set by name, or a folder of one's own, as plays in time order and their catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intentrec_core.errors import ConfigError, DataError
from stream.cli.progress import Report

if TYPE_CHECKING:
    import pyarrow as pa

    from intentrec_core.features.catalogue import Catalogue

MOVIELENS = "movielens-100k"


@dataclass(frozen=True)
class DataSet:
    """Plays (schema PLAYS, in time order), their items, and a title for the screen."""

    title: str
    plays: pa.Table
    catalogue: Catalogue

    def earliest(self, share: float) -> pa.Table:
        """The first ``share`` of the plays; plays of one millisecond are not parted, they go to the rest."""
        return self._split(share)[0]

    def rest(self, share: float) -> pa.Table:
        """What comes after the first ``share`` of the plays."""
        return self._split(share)[1]

    def _split(self, share: float) -> tuple[pa.Table, pa.Table]:
        from intentrec_core.evaluation.split import temporal_split

        if share in (0.0, 1.0):
            nothing = self.plays.slice(0, 0)
            return (nothing, self.plays) if share == 0.0 else (self.plays, nothing)
        split = temporal_split(self.plays, share)
        return split.train, split.test


def load_data(source: str, cache_dir: Path, report: Report) -> DataSet:
    """Reads, and fetches if need be, what ``--data`` names.

    Raises: DataError when it cannot be had; ConfigError when it is neither a known name nor a folder.
    """
    if source == MOVIELENS:
        from intentrec_core.datasets.movielens import fetch_movielens

        found = fetch_movielens(cache_dir, progress=report)
        return DataSet("MovieLens-100K", found.plays, found.catalogue)
    folder = Path(source)
    if not folder.is_dir():
        raise ConfigError(f"--data {source}: allowed: {MOVIELENS}, or a folder with plays.parquet and items.parquet")
    return _load_folder(folder)


def load_plays(source: str, cache_dir: Path, report: Report) -> pa.Table:
    """Plays alone (schema PLAYS, in time order): of a known name, a Parquet file, or a folder with plays.parquet.

    Raises: DataError when they cannot be had; ConfigError when the source is none of these.
    """
    path = Path(source)
    if source == MOVIELENS:
        return load_data(source, cache_dir, report).plays
    if not path.exists():
        raise ConfigError(
            f"--plays {source}: allowed: {MOVIELENS}, a Parquet file of plays, or a folder with plays.parquet"
        )
    return _read_plays(path / "plays.parquet" if path.is_dir() else path)


def _load_folder(folder: Path) -> DataSet:
    from intentrec_core.features.catalogue import Catalogue

    items = next((path for name in ("items.parquet", "items.jsonl") if (path := folder / name).is_file()), None)
    if items is None:
        raise DataError(f"{folder}: no items.parquet and no items.jsonl: one row an item, with item_id and title")
    return DataSet(folder.name, _read_plays(folder / "plays.parquet"), Catalogue.load(items))


def _read_plays(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from intentrec_core.plays.table import check_plays

    try:
        return check_plays(pq.read_table(path))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
