"""The score of the online Markov chain without what makes it fast: every transition is added up, and every reached row ranked.

Compiled as the kernel beside it is, so that the two round alike: their answers are equal to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled
from intentrec_core.kernels.transitions import NONE


@compiled
def plain_among_top(
    rows: Any,
    last: Any,
    last_starts: Any,
    hidden: Any,
    hidden_starts: Any,
    k: Any,
    max_per_item: Any,
    weights: Any,
    counts: Any,
    order: Any,
    num_added: Any,
    newest: Any,
    ring: Any,
    scores: Any,
    is_hidden: Any,
) -> Any:
    """As :func:`~intentrec_core.kernels.transitions.among_top`."""
    found = np.zeros(len(rows), dtype=np.bool_)
    shrinkage, decay, backoff = weights[0], weights[1], np.float32(weights[2])
    oldest, num_rows = max(0, num_added - len(ring)), len(scores)
    reached = np.empty(0, dtype=np.int64)
    led_to = np.empty(max_per_item, dtype=np.int64)
    for i in range(len(rows)):
        if rows[i] <= 0:
            continue
        num_reached = 0
        capacity = (last_starts[i + 1] - last_starts[i]) * max_per_item
        if len(reached) < capacity:
            reached = np.empty(capacity, dtype=np.int64)
        weight = 1.0
        for at in range(last_starts[i + 1] - 1, last_starts[i] - 1, -1):
            number, transition = 0, newest[last[at]] if last[at] > 0 else NONE
            while transition >= oldest and number < max_per_item:
                place = transition & (len(ring) - 1)
                led_to[number], transition = ring[place, 0], ring[place, 1]
                number += 1
            share = np.float32(weight / (number + shrinkage))
            for row in led_to[:number]:
                if scores[row] == 0:
                    reached[num_reached] = row
                    num_reached += 1
                scores[row] += share
            weight *= decay
        for at in range(hidden_starts[i], hidden_starts[i + 1]):
            if hidden[at] < num_rows:
                is_hidden[hidden[at]] = True
        own = scores[rows[i]] + (backoff * np.float32(counts[rows[i]]) if rows[i] < len(counts) else np.float32(0))
        if own > 0 and not is_hidden[rows[i]]:
            better, equal = 0, 0
            for at in range(num_reached):
                row = reached[at]
                if row != rows[i] and not is_hidden[row]:
                    score = scores[row] + (backoff * np.float32(counts[row]) if row < len(counts) else np.float32(0))
                    better += score > own
                    equal += score == own
            for at in range(len(order)):
                row = order[at]
                score = backoff * np.float32(counts[row])
                if score < own or 1 + better + 0.5 * equal > k:
                    break
                if row != rows[i] and row < num_rows and scores[row] == 0 and not is_hidden[row]:
                    better += score > own
                    equal += score == own
            found[i] = 1 + better + 0.5 * equal <= k
        for at in range(num_reached):
            scores[reached[at]] = 0
        for at in range(hidden_starts[i], hidden_starts[i + 1]):
            if hidden[at] < num_rows:
                is_hidden[hidden[at]] = False
    return found
