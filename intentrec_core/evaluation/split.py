"""The global temporal split: plays before one moment are for training, plays from it on are for testing."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from intentrec_core.errors import DataError


@dataclass(frozen=True, slots=True)
class TemporalSplit:
    """Plays before ``cut_ms`` and plays from it on, each in event-time order."""

    train: pa.Table
    test: pa.Table
    cut_ms: int


def temporal_split(plays: pa.Table, train_ratio: float = 0.7) -> TemporalSplit:
    """Splits at the event time of the play that is ``train_ratio`` of the way through.

    Plays of the same millisecond stay together, on the test side. ``plays`` must be in event-time order.

    Raises: DataError when one side would be empty.
    """
    place = int(plays.num_rows * train_ratio)
    if not 0 < place < plays.num_rows:
        raise DataError(
            f"{plays.num_rows} plays cannot be split {train_ratio:g} to {1 - train_ratio:g}: use more plays"
        )
    return split_at(plays, plays.column("ts_ms")[place].as_py())


def split_at(plays: pa.Table, cut_ms: int) -> TemporalSplit:
    """Splits at event time ``cut_ms``.

    Raises: DataError when one side would be empty.
    """
    num_train = pc.sum(pc.less(plays.column("ts_ms"), cut_ms)).as_py() or 0
    if not 0 < num_train < plays.num_rows:
        raise DataError(f"all {plays.num_rows} plays are on one side of {cut_ms}: choose another cut")
    return TemporalSplit(plays.slice(0, num_train), plays.slice(num_train), cut_ms)
