"""What the model says at a play, as one row of numbers: one tensor to leave a device by, instead of one for each part.

Shapes: R rows; O columns: W of the item vector, S probabilities of all heads, P of Z, M alphas, the primary label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.encoder import StepOutput, no_output
from intentrec_core.model import IntentRec, ModelOutput
from intentrec_core.slots import NO_LABEL


def row_width(model: IntentRec) -> int:
    """O."""
    return sum(part.shape[1] for part in no_output(model, 0)[:-1]) + 1


def as_rows(output: ModelOutput, label_offsets: Sequence[int]) -> Tensor:
    """Shapes: f32[B, T, O]. A label's number is far below 2^24 and so is itself in float32."""
    probs = [torch.softmax(logits, dim=-1) for logits in output.head_logits]
    if probs:
        primary = primary_labels(output, label_offsets)[..., None].float()
    else:
        primary = torch.full_like(output.item_BTW[..., :1], NO_LABEL)
    return torch.cat([output.item_BTW, *probs, output.intent_BTP, output.alpha_BTM, primary], dim=-1)


def read_rows(said_RO: NDArray[np.float32], rows: NDArray[np.int64], out: StepOutput) -> None:
    """Writes what was said at plays to their ``rows`` of ``out``. Shapes: rows i64[R]."""
    low = 0
    for part in out[:-1]:
        high = low + part.shape[1]
        part[rows] = said_RO[:, low:high]
        low = high
    out.primary[rows] = said_RO[:, low]


def primary_labels(output: ModelOutput, label_offsets: Sequence[int]) -> Tensor:
    """The primary intent of every play: the likeliest label of the head with the largest alpha, as a flat label id.

    Shapes: i64[B, T].
    """
    likeliest = torch.stack(
        [logit.argmax(dim=-1) + offset for logit, offset in zip(output.head_logits, label_offsets, strict=True)], dim=-1
    )
    return likeliest.gather(-1, output.alpha_BTM.argmax(dim=-1, keepdim=True)).squeeze(-1)
