"""The plays that both programs of the train bench learn from, in one CSV file that each can read.

MovieLens-100K is fetched as ``intentrec data movielens-100k`` does. The Amazon Beauty reviews (2014, 5-core) have no licence that
would let them be shipped or fetched here: BENCH_BEAUTY_FOLDER names the folder that has them. Read there is
beauty_events_with_time.csv.gz: columns user, item, timestamp (seconds), one review a row.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from intentrec_core.datasets.movielens import fetch_movielens
from stream.settings import Settings

BEAUTY_VARIABLE = "BENCH_BEAUTY_FOLDER"
BEAUTY_FILE = "beauty_events_with_time.csv.gz"

Play = tuple[str, str, int]


@dataclass(frozen=True)
class TrainingData:
    """A data set and the length of its contexts: RecTools' default for MovieLens, the usual one of papers for Beauty.

    ``members`` of them are taken, where all would make a round too long.
    """

    name: str
    length: int
    members: int
    plays: tuple[Play, ...]

    def write(self, path: Path) -> DataSize:
        """Writes the last ``length`` + 1 plays of each member, which is what a SASRec of that length learns from."""
        by_user: dict[str, list[Play]] = {}
        for play in self.plays:
            by_user.setdefault(play[0], []).append(play)
        chosen = list(by_user.values())[: self.members]
        kept = sorted((p for own in chosen for p in own[-self.length - 1 :]), key=lambda p: p[2])
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "item_id", "ts_ms"])
            writer.writerows(kept)
        contexts = [min(len(own) - 1, self.length) for own in chosen]
        counts = Counter(item for _, item, _ in kept)
        return DataSize(
            targets=sum(contexts),
            items=len(counts),
            mean_keys=sum(c * (c + 1) / 2 for c in contexts) / sum(contexts),
            popularity_loss=-sum(n / len(kept) * math.log(n / len(kept)) for n in counts.values()),
        )


@dataclass(frozen=True)
class DataSize:
    """What was written: plays to predict, items, keys that a play attends to, and the loss of knowing popularity only."""

    targets: int
    items: int
    mean_keys: float
    popularity_loss: float


def data_sets(*, quick: bool) -> Iterator[TrainingData]:
    """MovieLens, and Beauty where it is."""
    table = fetch_movielens(Settings.load().cache_dir).plays
    columns = (table.column(name).to_pylist() for name in ("user_id", "item_id", "ts_ms"))
    yield TrainingData("movielens", 100, 64 if quick else 943, tuple(zip(*columns, strict=True)))
    folder = os.environ.get(BEAUTY_VARIABLE)
    if not folder:
        print(f"Beauty is not measured: {BEAUTY_VARIABLE} names no folder with {BEAUTY_FILE}", flush=True)
        return
    with gzip.open(Path(folder) / BEAUTY_FILE, "rt", newline="") as file:
        rows = [(row["user"], row["item"], int(row["timestamp"]) * 1000) for row in csv.DictReader(file)]
    yield TrainingData("beauty", 50, 64 if quick else 4096, tuple(sorted(rows, key=lambda play: play[2])))
