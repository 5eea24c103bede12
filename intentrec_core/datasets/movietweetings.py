"""MovieTweetings: ratings of films that people published, by the second, with new films all the time.

A play is a rating; a member rates a film once, so there are no action types. Read are ratings.dat (member::film::rating::seconds)
and movies.dat (film::title (year)::genre|genre), both UTF-8.

Source: Dooms, De Pessemier, Martens, "MovieTweetings: a Movie Rating Dataset Collected From Twitter", CrowdRec at RecSys 2013.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from intentrec_core.datasets.recorded import RecordedPlays, columns_table, context_column, found_file
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.plays.table import check_plays

LICENCE = """\
MovieTweetings, Copyright (c) 2013 Simon Dooms, MIT licence.
Publications that use it cite: S. Dooms, T. De Pessemier, L. Martens. MovieTweetings: a Movie Rating Dataset Collected From
Twitter. Workshop on Crowdsourcing and Human Computation for Recommender Systems (CrowdRec) at RecSys 2013."""

_TITLE_YEAR = re.compile(r".*\((\d{4})\)")


def load_movietweetings(folder: Path) -> RecordedPlays:
    """The data set from its folder. Ratings of one second keep the order of the file.

    Raises: DataError with the file, and the line that cannot be read.
    """
    ratings = found_file(folder, "ratings.dat")
    lines = list(_lines(ratings, 4))
    members, films, stars, seconds = ([row[i] for row in lines] for i in range(4))
    try:
        ts_ms = 1000 * np.array(seconds, dtype=np.float64).astype(np.int64)
    except ValueError as error:
        raise DataError(f"{ratings}: {error}; allowed: seconds since 1970 in the fourth column") from error
    plays = columns_table(
        {
            "event_id": [f"mt-{member}-{film}" for member, film in zip(members, films, strict=True)],
            "user_id": members,
            "item_id": films,
            "ts_ms": ts_ms,
            "context": context_column(("rating",), [stars]),
        },
        len(lines),
    )
    items = [_film(*row) for row in _lines(found_file(folder, "movies.dat"), 3)]
    return RecordedPlays(check_plays(plays), Catalogue(items), LICENCE)


def _lines(path: Path, num_columns: int) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            row = line.rstrip("\n").split("::")
            if len(row) != num_columns:
                raise DataError(
                    f"{path}: line {number} has {len(row)} columns; allowed: {num_columns}, separated by ::"
                )
            yield row


def _film(item_id: str, title: str, genres: str) -> Item:
    attributes: dict[str, object] = {"genres": [genre for genre in genres.split("|") if genre]}
    if year := _TITLE_YEAR.fullmatch(title):
        attributes["year"] = int(year[1])
    return Item(item_id, title, attributes)
