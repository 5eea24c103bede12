"""What the model says at a play, as one row of numbers: one tensor to leave a device by, instead of one for each part.

Shapes: R rows; O columns: W of the item vector, S probabilities of all heads, P of Z, M alphas, the primary label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.engine.encoder import StepOutput, no_output
from intentrec_core.engine.slots import NO_LABEL
from intentrec_core.model.model import IntentRec, ModelOutput


def row_width(model: IntentRec) -> int:
    """O."""
    return sum(_widths(model)) + 1


def _widths(model: IntentRec) -> list[int]:
    """Columns of each part but the last, which is a single one."""
    return [part.shape[1] for part in no_output(model, 0)[:-1]]


def as_rows(output: ModelOutput, label_offsets: Sequence[int]) -> Tensor:
    """Shapes: f32[B, T, O]. A label's number is far below 2^24 and so is itself in float32."""
    probs = [torch.softmax(logits, dim=-1) for logits in output.head_logits]
    if probs:
        primary = primary_labels(output, label_offsets)[..., None].float()
    else:
        primary = torch.full_like(output.item_BTW[..., :1], NO_LABEL)
    return torch.cat([output.item_BTW, *probs, output.intent_BTP, output.alpha_BTM, primary], dim=-1)


def read_rows(model: IntentRec, said_RO: NDArray[np.float32]) -> StepOutput:
    """What rows say. Nothing but the primary labels is copied: it is told by the same memory."""
    item, probs, intent, alpha, primary = np.split(said_RO, np.cumsum(_widths(model)), axis=1)
    return StepOutput(item, probs, intent, alpha, primary[:, 0].astype(np.int64))


def put_rows(said: StepOutput, rows: NDArray[np.int64], out: StepOutput) -> None:
    """Writes what was said at plays to their ``rows`` of ``out``. Shapes: rows i64[R]."""
    for part, part_said in zip(out[:-1], said[:-1], strict=True):
        part[rows] = part_said
    out.primary[rows] = said.primary


def primary_labels(output: ModelOutput, label_offsets: Sequence[int]) -> Tensor:
    """The primary intent of every play: the likeliest label of the head with the largest alpha, as a flat label id.

    Shapes: i64[B, T].
    """
    likeliest = torch.stack(
        [logit.argmax(dim=-1) + offset for logit, offset in zip(output.head_logits, label_offsets, strict=True)], dim=-1
    )
    return likeliest.gather(-1, output.alpha_BTM.argmax(dim=-1, keepdim=True)).squeeze(-1)
