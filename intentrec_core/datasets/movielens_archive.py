"""Reads the two archives that contain MovieLens-100K into the same form.

The data set's own zip has the raw files. The recbole wheel has the same ratings in the same order, and the movies with
the year cut out of the title. Both become: the title as people write it, the year, and the genres in the data set's
order ("unknown" is not a genre). Files are verified before they are parsed.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.plays.table import PLAYS

GROUPLENS = {
    "ml-100k/u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "ml-100k/u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
}
RECBOLE = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "recbole/dataset_example/ml-100k/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}
"""Files of each archive, ratings first, and their SHA-256."""

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_ARTICLES = "The|A|An|Il|La|Le|Les|L'|Lo|I|El|Los|Las|Das|Der|Die|Un|Une|Det|O"
_TRAILING_ARTICLE = re.compile(rf"^([^(]+), ({_ARTICLES})(?= \(|$)")
_TRAILING_ARTICLE_INSIDE = re.compile(rf"\(([^()]+), ({_ARTICLES})\)")
_TITLE_YEAR = re.compile(r"(.*?)\s*\((\d{4})\)(?: \(V\))?")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The ratings in the files' order, and the movies."""

    plays: pa.Table
    catalogue: Catalogue


def read_archive(path: Path) -> Parsed:
    """Reads a ml-100k.zip or a recbole wheel.

    Raises: DataError when ``path`` is neither, is damaged, or contains a file that does not match its checksum.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
            for digests, parse in ((GROUPLENS, parse_grouplens), (RECBOLE, parse_recbole)):
                if set(digests) <= names:
                    return parse(*(_verified(file, name, digest) for name, digest in digests.items()))
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{path.name} is not a readable zip ({error}): it is damaged; download it again") from error
    raise DataError(f"{path.name} holds neither {' and '.join(GROUPLENS)} nor {' and '.join(RECBOLE)}")


def parse_grouplens(ratings: bytes, movies: bytes) -> Parsed:
    """Parses u.data (user, item, rating and seconds, separated by tabs) and u.item (Latin-1, separated by bars, with a
    flag per genre).
    """
    items = []
    for row in _rows(movies.decode("latin-1"), "|"):
        match = _TITLE_YEAR.fullmatch(row[1].strip())
        title, year = (match[1], match[2]) if match else (row[1].strip(), "")
        flags = row[6:]  # row[5] is the genre "unknown"
        items.append(_movie(row[0], title, year, [g for g, flag in zip(GENRES, flags, strict=True) if flag == "1"]))
    return Parsed(_plays(ratings.decode("ascii")), Catalogue(items))


def parse_recbole(ratings: bytes, movies: bytes) -> Parsed:
    """Parses the wheel's .inter and .item: separated by tabs after a header line, genres separated by spaces.

    One title there has kept its year and has "V" (straight to video) as its year, and the movie without a name is
    misspelt.
    """
    items = []
    for row in _rows(movies.decode("utf-8").partition("\n")[2], "\t"):
        title, year = row[1].strip(), row[2]
        match = _TITLE_YEAR.fullmatch(title)
        if match and not year.isdigit():
            title, year = match[1], match[2]
        if title == "unkonwn":
            title = "unknown"
        items.append(_movie(row[0], title, year, [genre for genre in row[3].split() if genre in GENRES]))
    return Parsed(_plays(ratings.decode("ascii").partition("\n")[2]), Catalogue(items))


def natural_title(title: str) -> str:
    """The title with its article at the start: "Postino, Il" becomes "Il Postino"."""

    def with_article_first(match: re.Match[str]) -> str:
        return f"{match[2]}{match[1]}" if match[2].endswith("'") else f"{match[2]} {match[1]}"

    title = _TRAILING_ARTICLE.sub(with_article_first, title)
    return _TRAILING_ARTICLE_INSIDE.sub(lambda match: f"({with_article_first(match)})", title)


def _verified(file: zipfile.ZipFile, name: str, digest: str) -> bytes:
    data = file.read(name)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise DataError(
            f"{name} has SHA-256 {found[:12]}…, not {digest[:12]}…: "
            "the download is corrupt, or is not this data set; try again"
        )
    return data


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return (line.split(separator) for line in text.split("\n") if line)


def _movie(item_id: str, title: str, year: str, genres: list[str]) -> Item:
    shown = natural_title(title)
    if not year.isdigit():
        return Item(item_id, shown, {"genres": genres})
    return Item(item_id, f"{shown} ({year})", {"genres": genres, "year": int(year)})


def _plays(text: str) -> pa.Table:
    """The lines of u.data as plays, in the file's order."""
    rows = list(_rows(text, "\t"))
    users, items, ratings, seconds = ([row[i] for row in rows] for i in range(4))
    context = pa.MapArray.from_arrays(
        np.arange(len(rows) + 1, dtype=np.int32), pa.array(["rating"] * len(rows)), pa.array(ratings, pa.string())
    )
    columns = {
        "event_id": [f"ml-{user}-{item}" for user, item in zip(users, items, strict=True)],
        "user_id": users,
        "item_id": items,
        "ts_ms": 1000 * np.array(seconds, dtype=np.float64).astype(np.int64),
        "context": context,
    }
    absent = (pa.nulls(len(rows), field.type) for field in PLAYS)
    return pa.table(
        [
            pa.array(columns[f.name], f.type) if f.name in columns else empty
            for f, empty in zip(PLAYS, absent, strict=True)
        ],
        schema=PLAYS,
    )
