"""Writes a simulated world to a folder: plays.parquet, items.parquet, and the hidden intents in truth.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.plays.table import PLAYS

if TYPE_CHECKING:
    from intentrec_core.simulation.simulate import World
    from stream.cli.progress import Report

TRUTH = pa.schema([("event_id", pa.string()), ("hidden_intent", pa.string())])


def write_world(world: World, folder: Path, num_plays: int, report: Report) -> int:
    """Writes the world's first plays, tick by tick, and its items. Returns the number of plays: fewer if the world ends.

    Raises: DataError if the folder is not writable.
    """
    title, done, last_ms = f"simulating into {folder}", 0, world.start_ms
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            pq.ParquetWriter(folder / "plays.parquet", PLAYS, compression="zstd") as plays,
            pq.ParquetWriter(folder / "truth.parquet", TRUTH, compression="zstd") as truth,
        ):
            for batch in world.batches(num_plays):
                table = batch.table()
                plays.write_table(table)
                truth.write_table(pa.table([table.column("event_id"), pa.array(batch.hidden_intents())], schema=TRUTH))
                done += len(batch)
                last_ms = table.column("ts_ms")[-1].as_py()
                report(title, done, num_plays)
        Catalogue(world.catalogue(last_ms + 1)).save(folder / "items.parquet")
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}; free its disk or choose another folder") from error
    return done
