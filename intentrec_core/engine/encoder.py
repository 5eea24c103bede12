"""The interface of an encoder: a model over a pool of cached keys and values, which the engine calls on any device.

    CpuEncoder     one compiled step over ragged rows; keys and values are read in place; float32, or keys and values as int8
    TorchEncoder   the model itself on any torch device; on CUDA, one new play per context runs as a graph over keys and
                   values in place, which are kept in float16

In float32 their outputs agree within the tolerance that :mod:`intentrec_core.engine.reference` is compared with. An
encoder knows parts of its memory and plays. It does not know members, histories or time.

Shapes: R new plays (rows), rows of one context next to each other and oldest first; W width, S labels of all
heads, M heads, P width of Z.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from intentrec_core.errors import ConfigError
from intentrec_core.features.columns import Columns
from intentrec_core.model.config import ModelSizes


class StepOutput(NamedTuple):
    """The model's output at each row. ``item`` is only set for rows that were wanted. ``primary`` is the flat label id of
    the primary intent.

    Shapes: item f32[R, W]; probs f32[R, S] the heads side by side; intent f32[R, P]; alpha f32[R, M]; primary i64[R].
    Without the intent stage S, M and P are 0 and primary is -1.
    """

    item: NDArray[np.float32]
    probs: NDArray[np.float32]
    intent: NDArray[np.float32]
    alpha: NDArray[np.float32]
    primary: NDArray[np.int64]


class Encoder(Protocol):
    """A model with its pool: ``num_slots`` slots of ``slot_units`` units, each with room for ``unit_plays`` plays. A slot has
    room for ``slot_contexts`` whole contexts. Not thread safe.
    """

    num_slots: int
    slot_contexts: int
    slot_units: int
    unit_plays: int

    def encode(self, columns: Columns, units: NDArray[np.int64], wanted: NDArray[np.bool_]) -> StepOutput:
        """Encodes new plays that follow those their parts hold, and caches their keys and values.

        The returned arrays are valid until the next call, which may overwrite them.

        Shapes: columns of B contexts with R new plays; units i64[B], the first unit of each context's part
        (:mod:`intentrec_core.engine.slots`), no two parts overlapping; wanted bool[R].
        """
        ...

    def move(self, from_unit: int, to_unit: int, num_units: int) -> None:
        """Copies what ``num_units`` hold to others, which may overlap with them. Cost: their bytes, read and written once."""
        ...


def no_output(model: ModelSizes, num_rows: int) -> StepOutput:
    """Arrays for the output at ``num_rows`` rows, filled with zeros and without labels."""
    config = model.config
    heads = model.domain.heads if config.intent_stage else ()
    return StepOutput(
        item=np.zeros((num_rows, config.width), dtype=np.float32),
        probs=np.zeros((num_rows, sum(head.num_labels for head in heads)), dtype=np.float32),
        intent=np.zeros((num_rows, config.intent_width if heads else 0), dtype=np.float32),
        alpha=np.zeros((num_rows, len(heads)), dtype=np.float32),
        primary=np.full(num_rows, -1, dtype=np.int64),
    )


def contexts_within(budget_bytes: int, context_bytes: int) -> int:
    """Number of whole contexts that fit into a budget. Raises: ConfigError when not even one does."""
    if budget_bytes < context_bytes:
        raise ConfigError(f"pool_bytes is {budget_bytes}; allowed: at least {context_bytes}, which one member needs")
    return budget_bytes // context_bytes
