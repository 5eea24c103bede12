"""What encodes new plays for the engine, whatever the device: a pool of cached keys and values with the model on top.

    CpuEncoder     one compiled step over ragged rows, keys and values read in place; float32
    TorchEncoder   the model itself on any torch device; on CUDA one new play a context is a graph over keys and values in place,
                   which are kept in float16

In float32 both say the same within the bound that :mod:`intentrec_core.engine.reference` is compared by. An encoder
knows slots and
plays; it knows no members, no histories and no clock.

Shapes: N slots, R new plays (rows), those of one slot next to each other and oldest first; W width, S labels of all heads,
M heads, P width of Z.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from intentrec_core.errors import ConfigError
from intentrec_core.features.columns import Columns
from intentrec_core.model.model import IntentRec


class StepOutput(NamedTuple):
    """What the model says at each row; ``item`` only where it is wanted. ``primary`` is the flat label of the primary intent.

    Shapes: item f32[R, W]; probs f32[R, S] the heads side by side; intent f32[R, P]; alpha f32[R, M]; primary i64[R]. Without
    the intent stage S, M and P are 0 and primary is -1.
    """

    item: NDArray[np.float32]
    probs: NDArray[np.float32]
    intent: NDArray[np.float32]
    alpha: NDArray[np.float32]
    primary: NDArray[np.int64]


class Encoder(Protocol):
    """A model over its pool. Not thread safe."""

    num_slots: int

    def encode(self, columns: Columns, slots: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """Encodes new plays behind those their slots hold, and keeps their keys and values.

        What it returns is there until the next call, which may write over it.

        Shapes: columns of B contexts with R new plays; slots i64[B], each once; wanted bool[R].
        """
        ...


def no_output(model: IntentRec, num_rows: int) -> StepOutput:
    """Room for what the model says at ``num_rows`` rows."""
    config = model.config
    heads = model.domain.heads if config.intent_stage else ()
    return StepOutput(
        item=np.zeros((num_rows, config.width), dtype=np.float32),
        probs=np.zeros((num_rows, sum(head.num_labels for head in heads)), dtype=np.float32),
        intent=np.zeros((num_rows, config.intent_width if heads else 0), dtype=np.float32),
        alpha=np.zeros((num_rows, len(heads)), dtype=np.float32),
        primary=np.full(num_rows, -1, dtype=np.int64),
    )


def slots_within(budget_bytes: int, slot_bytes: int) -> int:
    """How many slots a budget pays for. Raises: ConfigError when it is not even one."""
    if budget_bytes < slot_bytes:
        raise ConfigError(f"pool_bytes is {budget_bytes}, one member needs {slot_bytes}; allowed: at least that")
    return budget_bytes // slot_bytes
