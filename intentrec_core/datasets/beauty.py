"""Amazon Beauty (2014, 5-core): the set of the published leave-one-out tables, with the times of its reviews.

A play is a review; times have a resolution of a day, and almost half of all neighbours share one. The order in which they stand
in the file is the order of the published tables, and is kept. Within a day it is an artefact: another order of the same reviews
gives 29 % of users another last item.

Read are beauty_events_with_time.csv.gz (user, pos, item, timestamp in seconds; pos counts each user's reviews) and
Beauty_item2attributes.json (anonymous attributes, categories and brands, by item).

Source: He and McAuley, WWW 2016; McAuley et al., SIGIR 2015. The files are those of S3-Rec (Zhou et al., CIKM 2020).
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np

from intentrec_core.datasets.recorded import RecordedPlays, columns_table, found_file
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.plays.table import check_plays

LICENCE = """\
Amazon reviews of 2014, collected by Julian McAuley's group: no explicit licence. Publications that use them cite
R. He, J. McAuley. Ups and Downs (WWW 2016) and J. McAuley et al. Image-based Recommendations (SIGIR 2015)."""

_COLUMNS = ["user", "pos", "item", "timestamp"]


def load_beauty(folder: Path) -> RecordedPlays:
    """The data set from its folder.

    Raises: DataError with the file, and the line in which a user's reviews are not in the order of time.
    """
    path = found_file(folder, "beauty_events_with_time.csv.gz")
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0] != _COLUMNS:
        raise DataError(f"{path}: the first line is {rows[:1]}; allowed: {','.join(_COLUMNS)}")
    users, places, items, seconds = ([row[i] for row in rows[1:]] for i in range(4))
    ts_ms = 1000 * np.array(seconds, dtype=np.int64)
    place, same = np.array(places, dtype=np.int64), np.array(users[1:]) == np.array(users[:-1])
    wrong = same & ((place[1:] != place[:-1] + 1) | (ts_ms[1:] < ts_ms[:-1]))
    if wrong.any():
        line = 3 + int(wrong.argmax())
        raise DataError(
            f"{path}: line {line}: not after line {line - 1} of the same user; allowed: pos and timestamp rise"
        )
    plays = columns_table(
        {
            "event_id": [f"{user}-{at}" for user, at in zip(users, places, strict=True)],
            "user_id": users,
            "item_id": items,
            "ts_ms": ts_ms,
        },
        len(users),
    )
    attributes = json.loads(found_file(folder, "Beauty_item2attributes.json").read_text("utf-8"))
    catalogue = [Item(item, f"item {item}", {"attributes": [str(a) for a in own]}) for item, own in attributes.items()]
    return RecordedPlays(check_plays(plays), Catalogue(catalogue), LICENCE)
