"""An encoder that fails where it meets certain items, as an assertion on a device or a broken weight would make it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from intentrec_core.columns import Columns
from intentrec_core.encoder import Encoder, StepOutput
from stream.serving import Serving


class FaultyEncoder:
    """The real encoder, but for contexts with new plays of certain item rows.

    ``raises`` is asked about the new rows of a call and told how many contexts it has; ``spoils`` are rows from which on a
    context's output is not finite.
    """

    def __init__(
        self, encoder: Encoder, *, raises: Callable[[NDArray[np.int64], int], bool], spoils: Collection[int] = ()
    ) -> None:
        self.num_slots, self.encoder = encoder.num_slots, encoder
        self._raises, self._spoils = raises, list(spoils)

    def encode(self, columns: Columns, slots: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        if self._raises(columns.item_row, len(slots)):
            raise RuntimeError("device-side assert triggered")
        output = self.encoder.encode(columns, slots, wanted)
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
) -> Iterator[None]:
    """A serving bundle whose encoder is faulty for a while."""
    engine = serving.engine
    sound = engine.encoder
    engine.encoder = FaultyEncoder(sound, raises=raises, spoils=spoils)
    try:
        yield
    finally:
        engine.encoder = sound
