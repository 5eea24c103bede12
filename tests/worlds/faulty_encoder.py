"""An encoder that fails on certain items: index out of range, broken weight, lost device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from intentrec_core.engine.encoder import Encoder, StepOutput
from intentrec_core.features.columns import Columns
from stream.bundles.serving import Serving


def out_of_range() -> Exception:
    """What a play that indexes past a table makes torch raise."""
    return IndexError("index out of range in self")


def device_lost() -> Exception:
    """What torch raises at whatever is asked of a device that is lost."""
    return torch.AcceleratorError(
        "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported at some other API call, so "
        "the stacktrace below might be incorrect."
    )


class FaultyEncoder:
    """The real encoder, but for contexts with new plays of certain item rows.

    ``raises`` gets the new rows of a call and the number of its contexts, ``error`` makes what is raised;
    ``spoils`` are rows from which on a context's output is not finite.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        raises: Callable[[NDArray[np.int64], int], bool],
        spoils: Collection[int] = (),
        error: Callable[[], Exception] = out_of_range,
    ) -> None:
        self.encoder = encoder
        self.num_slots, self.slot_contexts = encoder.num_slots, encoder.slot_contexts
        self.slot_units, self.unit_plays = encoder.slot_units, encoder.unit_plays
        self._raises, self._spoils, self._error = raises, list(spoils), error

    def move(self, from_unit: int, to_unit: int, num_units: int) -> None:
        self.encoder.move(from_unit, to_unit, num_units)

    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        if self._raises(columns.item_row, len(units)):
            raise self._error()
        output = self.encoder.encode(columns, units, wanted)
        low = 0
        for length in columns.lengths.tolist():
            bad = np.isin(columns.item_row[low : low + length], self._spoils).cumsum() > 0  # attention is causal
            output.item[low : low + length][bad] = np.nan
            low += length
        return output


@contextmanager
def faulty(
    serving: Serving,
    *,
    raises: Callable[[NDArray[np.int64], int], bool] = lambda *_: False,
    spoils: Collection[int] = (),
    error: Callable[[], Exception] = out_of_range,
) -> Iterator[None]:
    """A serving bundle whose encoder is faulty for a while."""
    engine = serving.engine
    sound = engine.encoder
    engine.encoder = FaultyEncoder(sound, raises=raises, spoils=spoils, error=error)
    try:
        yield
    finally:
        engine.encoder = sound
