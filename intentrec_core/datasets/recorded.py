"""Public data sets that are read from a folder, because their terms or their hosts do not let a program fetch them.

``--data-root`` names the folder that holds one folder for each data set. The data are not part of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.plays.table import PLAYS


@dataclass(frozen=True, slots=True)
class RecordedPlays:
    """A data set: plays in event-time order (schema PLAYS), the catalogue of their items, and the terms of use."""

    plays: pa.Table
    catalogue: Catalogue
    licence: str


@dataclass(frozen=True, slots=True)
class RecordedSet:
    """A data set by name: its folder below the data root, the domain that describes it, and what reads it."""

    title: str
    folder: str
    domain: str
    load: Callable[[Path], RecordedPlays]


def columns_table(columns: dict[str, pa.Array | list[str] | np.ndarray], num_rows: int) -> pa.Table:
    """Columns as a table of schema PLAYS, in the given order; optional columns that are left out are null."""
    return pa.table(
        [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(num_rows, f.type) for f in PLAYS],
        schema=PLAYS,
    )


def context_column(keys: tuple[str, ...], values: list[list[str]]) -> pa.Array:
    """A context column in which every play has all ``keys``. ``values`` holds one list of texts per key."""
    num = len(values[0])
    offsets = np.arange(num + 1, dtype=np.int32) * len(keys)
    interleaved = np.array(values, dtype=object).T.ravel()
    return pa.MapArray.from_arrays(offsets, pa.array(list(keys) * num, pa.string()), pa.array(interleaved, pa.string()))


def found_file(folder: Path, *names: str) -> Path:
    """The first of these files that is there.

    Raises: DataError naming the folder and what it should hold.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {' or '.join(names)}: give the folder of the data set as it was published")
