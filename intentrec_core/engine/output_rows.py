"""The model's output at a play as one row of numbers, so that one tensor leaves the device instead of one per output.

Shapes: R rows; O columns: W of the item vector, S probabilities of all heads, P of Z, M alphas, the primary label.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.engine.encoder import StepOutput, no_output
from intentrec_core.engine.slots import NO_LABEL
from intentrec_core.model.config import ModelSizes
from intentrec_core.model.model import IntentRec, ModelOutput


def row_width(model: ModelSizes) -> int:
    """O: the number of columns."""
    return sum(_widths(model)) + 1


def _widths(model: ModelSizes) -> list[int]:
    """Number of columns of each output except the last, which has one."""
    return [column.shape[1] for column in no_output(model, 0)[:-1]]


def as_rows(model: IntentRec, output: ModelOutput) -> Tensor:
    """Shapes: f32[B, T, O]. Label ids are far below 2^24, so float32 holds them exactly."""
    probs = [torch.softmax(logits, dim=-1) for logits in output.head_logits]
    none = torch.full_like(output.item_BTW[..., :1], NO_LABEL)
    primary = primary_labels(model, output)[..., None].float() if probs else none
    return torch.cat([output.item_BTW, *probs, output.intent_BTP, output.alpha_BTM, primary], dim=-1)


def read_rows(model: ModelSizes, values_RO: NDArray[np.float32]) -> StepOutput:
    """Views into the rows. Only the primary labels are copied."""
    item, probs, intent, alpha, primary = np.split(values_RO, np.cumsum(_widths(model)), axis=1)
    return StepOutput(item, probs, intent, alpha, primary[:, 0].astype(np.int64))


def put_rows(output: StepOutput, rows: NDArray[np.int64], out: StepOutput) -> None:
    """Writes an output to the given ``rows`` of ``out``. Shapes: rows i64[R]."""
    for target, values in zip(out[:-1], output[:-1], strict=True):
        target[rows] = values
    out.primary[rows] = output.primary


def primary_labels(model: IntentRec, output: ModelOutput) -> Tensor:
    """The primary intent of every play, as a flat label id: among the heads that were trained, the most likely label of the
    head with the largest alpha.

    Shapes: i64[B, T].
    """
    likeliest = torch.stack(
        [
            logit.argmax(dim=-1) + offset
            for logit, offset in zip(output.head_logits, model.domain.label_offsets, strict=True)
        ],
        dim=-1,
    )
    leading = (output.alpha_BTM + model.primary_bias).argmax(dim=-1, keepdim=True)
    return likeliest.gather(-1, leading).squeeze(-1)
