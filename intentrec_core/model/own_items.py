"""The member's own items in the score: which of what was played is likely to be played again, now.

    score(i) += ⟨g(E, log p), [pair(s), key(s)]⟩        for each item i among the plays held, s its newest play

g is a gate, linear in E and in the log probabilities of all heads, and learnt from 0: what is intended decides between going on,
playing again and something new. No gradient reaches the heads from it, as from nothing else in the score.

The pair columns are 1 (an own item at all), log(1 + times played), log(1 + minutes since s), log(1 + other items played since s)
and 1 for the newest play. The moment is that of the newest play, never the target's. The key is relu(linear) of the fields of
play s alone: what was played, and how.

All of it is a function of the plays held and the weights, nothing later; nothing of it is kept between plays.

Shapes: B contexts, T plays of a context, Q queries of a context, G width of what the gate sees, F width of the
fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from intentrec_core.model.own_item_inputs import KEY_WIDTH, MINUTE_S, PAIR_COLUMNS


@dataclass(frozen=True, slots=True)
class OwnOffsets:
    """What is added to the scores of each query's own items.

    Shapes: row i64[..., T], offset f32[..., T]. No row but 0 occurs twice for a query; row 0 has the offset 0.
    """

    row: Tensor
    offset: Tensor

    def at(self, which: Any) -> OwnOffsets:
        """Those of some queries: whatever indexes the dimensions of queries."""
        return OwnOffsets(self.row[which], self.offset[which])

    def add_to(self, scores: Tensor) -> None:
        """Adds them to scores of all items, in place. Shape: f32[Q, V]."""
        scores.scatter_add_(1, self.row, self.offset)


class OwnItems(nn.Module):
    """The gate and the keys. An untrained gate changes no score. ``seen_width``: G, as :func:`seen_by_gate` gives it."""

    def __init__(self, seen_width: int, fields_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(seen_width, PAIR_COLUMNS + KEY_WIDTH)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self.key = nn.Linear(fields_width, KEY_WIDTH)

    def forward(
        self, seen_BQG: Tensor, query_place_BQ: Tensor, fields_BTF: Tensor, row_BT: Tensor, ts_BT: Tensor
    ) -> OwnOffsets:
        """The offsets of a member's own items, for Q queries of each of B contexts. Row 0 is no item.

        ``query_place_BQ``: the play at which each query is made. ``seen_BQG``: the gate's input at that play.

        Shapes: row i64[B, T], ts f64[B, T] in seconds -> BQT.
        Cost: O(B · T · (F + T + Q)) time and memory.
        """
        gate_BQC = self.gate(seen_BQG)
        key_BTK = torch.relu(self.key(fields_BTF))
        offset_BQT = torch.bmm(gate_BQC[..., PAIR_COLUMNS:], key_BTK.transpose(1, 2))
        newest_BQT = _newest_of_each_item(row_BT, query_place_BQ)
        columns = _pair_columns(row_BT, ts_BT, query_place_BQ, newest_BQT)
        for gate_BQ, column_BQT in zip(gate_BQC[..., :PAIR_COLUMNS].unbind(dim=-1), columns, strict=True):
            offset_BQT = offset_BQT + gate_BQ[..., None] * column_BQT
        return OwnOffsets(torch.where(newest_BQT, row_BT[:, None], 0), offset_BQT.masked_fill(~newest_BQT, 0.0))


def _newest_of_each_item(row_BT: Tensor, query_place_BQ: Tensor) -> Tensor:
    """Which plays are the newest of their item, among those up to each query. Shape: bool[B, Q, T]."""
    length = row_BT.shape[1]
    place = torch.arange(length, device=row_BT.device)
    again_BTT = (row_BT[:, :, None] == row_BT[:, None, :]) & (place > place[:, None])
    next_place_BT = torch.where(again_BTT, place, length).amin(dim=-1)
    now_BQ1 = query_place_BQ[..., None]
    return (place <= now_BQ1) & (next_place_BT[:, None] > now_BQ1) & (row_BT[:, None] > 0)


def _pair_columns(row_BT: Tensor, ts_BT: Tensor, query_place_BQ: Tensor, newest_BQT: Tensor) -> Iterator[Tensor]:
    """The pair columns, one after another. Shape: f32, each to be broadcast to [B, Q, T]."""
    place = torch.arange(row_BT.shape[1], device=row_BT.device)
    yield row_BT.new_ones((), dtype=torch.float32)
    times_BT = ((row_BT[:, :, None] == row_BT[:, None, :]) & (place <= place[:, None])).sum(dim=-1)
    yield torch.log1p(times_BT.float())[:, None]
    lag_s = (ts_BT.gather(1, query_place_BQ)[..., None] - ts_BT[:, None]).clamp_(min=0.0)
    yield torch.log1p(lag_s / MINUTE_S).float()
    num_newest = newest_BQT.long()
    yield torch.log1p((num_newest.sum(dim=-1, keepdim=True) - num_newest.cumsum(dim=-1)).float())
    yield (place == query_place_BQ[..., None]).float()
