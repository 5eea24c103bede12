"""Compiled steps of a Markov chain over items: adding transitions to a ring, and ranking what follows.

A transition's number counts all that were ever added; its place in the ring is the number modulo the ring's size, a power of two.
Of each transition the ring holds the row that it led to, and the number of the next older one from the same row.

A rank is only compared with ``k``, so most of a ranking is never made:

- A hidden row is asked no further.
- The chains of several plays are followed side by side, because each link is a load that waits for the one before it.
- What a row itself scores is summed first, in the order of the whole pass, so to the same bit. Scores only grow, so the pass over
  the others ends once ``k`` of them are above it.

Shapes: N plays, V item rows, row 0 the unknown item; ring i64[any, 2]; newest i64[V] the newest transition from each row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from intentrec_core.kernels.dense import compiled
from intentrec_core.kernels.hidden_rows import contains, flag

#: The number of no transition.
NONE = -1
#: Plays whose chains are followed side by side. For the links of a play, 5 chains of 128: 4.5 µs one chain after another, 2.1 all
#: 5 together, 1.4 and 0.9 those of 2 and 4 plays together.
PLAYS_AT_ONCE = 4


@compiled
def add(before: Any, after: Any, num_added: Any, newest: Any, ring: Any) -> Any:
    for i in range(len(before)):
        if before[i] <= 0 or after[i] <= 0:
            continue
        place = num_added & (len(ring) - 1)
        ring[place, 0] = after[i]
        ring[place, 1] = newest[before[i]]
        newest[before[i]] = num_added
        num_added += 1
    return num_added


def _repeated_sum(value: Any, share: Any, num: Any) -> Any:
    for _ in range(num):
        value += share
    return value


#: ``value`` + ``share`` + ``share`` …, ``num`` times, rounded after each: MATH would let the compiler reorder it.
repeated_sum = compiled(_repeated_sum, fastmath=set())


@compiled
def total(score: Any, backoff: Any, counts: Any, row: Any) -> Any:
    """What the chain says of a row, and what popularity adds."""
    return score + (backoff * np.float32(counts[row]) if row < len(counts) else np.float32(0))


@compiled
def follow(links: Any, num_chains: Any, oldest: Any, ring: Any, led_to: Any, lengths: Any) -> None:
    """The rows that each chain's newest transitions led to, newest first. ``links`` begins with their newest transitions.

    Shapes: links i64[≥ C], led_to i64[≥ C, most of a chain], lengths i64[≥ C] how many of them there are.
    """
    lengths[:num_chains] = 0
    for number in range(led_to.shape[1]):
        num_going_on = 0
        for chain in range(num_chains):
            transition = links[chain]
            if transition >= oldest:
                place = transition & (len(ring) - 1)
                led_to[chain, number], links[chain] = ring[place, 0], ring[place, 1]
                lengths[chain] = number + 1
                num_going_on += 1
        if num_going_on == 0:
            break


@compiled
def own_score(target: Any, led_to: Any, lengths: Any, shares: Any) -> Any:
    """What the whole pass would sum up for one row, to the bit. Chains are those of the oldest play to the newest."""
    own = np.float32(0)
    for chain in range(len(lengths) - 1, -1, -1):
        num = 0
        for at in range(lengths[chain]):
            num += led_to[chain, at] == target
        own = repeated_sum(own, shares[chain], num)
    return own


@compiled
def add_shares(
    target: Any, own: Any, k: Any, led_to: Any, lengths: Any, shares: Any, scores: Any, is_hidden: Any, reached: Any
) -> Any:
    """Scores what the chains led to, until ``k`` rows are above ``own``: scores only grow, and popularity only adds to them.

    Returns how many rows were ``reached``, and whether there are ``k``.
    """
    num_reached, num_above = 0, 0
    for chain in range(len(lengths) - 1, -1, -1):
        share = shares[chain]
        for at in range(lengths[chain]):
            row = led_to[chain, at]
            before = scores[row]
            after = before + share
            scores[row] = after
            if before == 0:
                reached[num_reached] = row
                num_reached += 1
            if before <= own and after > own and row != target and not is_hidden[row]:
                num_above += 1
                if num_above >= k:
                    return num_reached, True
    return num_reached, False


@compiled
def is_among(
    target: Any, own: Any, k: Any, backoff: Any, counts: Any, order: Any, scores: Any, is_hidden: Any, reached: Any
) -> Any:
    """Whether ``target`` is among the ``k`` best by scores that are complete."""
    better, equal = 0, 0
    for row in reached:
        if row != target and not is_hidden[row]:
            score = total(scores[row], backoff, counts, row)
            better += score > own
            equal += score == own
    for row in order:
        score = backoff * np.float32(counts[row])
        if score < own or 1 + better + 0.5 * equal > k:
            break
        if row != target and row < len(scores) and scores[row] == 0 and not is_hidden[row]:
            better += score > own
            equal += score == own
    return 1 + better + 0.5 * equal <= k


@compiled
def among_top(
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
    """For each of ``rows`` i64[N], whether it is among the ``k`` best that are not hidden, equal scores sharing their ranks.

    Shapes: last and hidden i64[any], the last rows and the hidden rows of each one after another, last_starts and hidden_starts
    i64[N + 1] where each begins; weights f64[3] shrinkage, decay and backoff a play; counts i64[any]; order i64[any] the rows by
    their counts, most first. ``scores`` f32[V] and ``is_hidden`` bool[V] are scratch space: all 0 before and after.
    """
    found = np.zeros(len(rows), dtype=np.bool_)
    shrinkage, decay, backoff = weights[0], weights[1], np.float32(weights[2])
    oldest, max_last = max(0, num_added - len(ring)), 0
    for i in range(len(rows)):
        max_last = max(max_last, last_starts[i + 1] - last_starts[i])
    asked, first_chain = np.empty(PLAYS_AT_ONCE, dtype=np.int64), np.zeros(PLAYS_AT_ONCE + 1, dtype=np.int64)
    max_chains = PLAYS_AT_ONCE * max_last
    links, lengths = np.empty(max_chains, dtype=np.int64), np.empty(max_chains, dtype=np.int64)
    led_to = np.empty((max_chains, max_per_item), dtype=np.int64)
    shares, reached = np.empty(max_last, dtype=np.float32), np.empty(max_last * max_per_item, dtype=np.int64)
    i = 0
    while i < len(rows):
        num_asked, num_chains = 0, 0
        while i < len(rows) and num_asked < PLAYS_AT_ONCE:
            if rows[i] > 0 and not contains(hidden[hidden_starts[i] : hidden_starts[i + 1]], rows[i]):
                for at in range(last_starts[i], last_starts[i + 1]):
                    links[num_chains] = newest[last[at]] if last[at] > 0 else NONE
                    num_chains += 1
                asked[num_asked] = i
                num_asked += 1
                first_chain[num_asked] = num_chains
            i += 1
        follow(links, num_chains, oldest, ring, led_to, lengths)
        for place in range(num_asked):
            target, chains = rows[asked[place]], slice(first_chain[place], first_chain[place + 1])
            own_led_to, own_lengths = led_to[chains], lengths[chains]
            weight = 1.0
            for chain in range(len(own_lengths) - 1, -1, -1):
                shares[chain] = np.float32(weight / (own_lengths[chain] + shrinkage))
                weight *= decay
            own = total(own_score(target, own_led_to, own_lengths, shares), backoff, counts, target)
            if own > 0:
                own_hidden = hidden[hidden_starts[asked[place]] : hidden_starts[asked[place] + 1]]
                flag(is_hidden, own_hidden, True)
                num_reached, is_decided = add_shares(
                    target, own, k, own_led_to, own_lengths, shares, scores, is_hidden, reached
                )
                own_reached = reached[:num_reached]
                if not is_decided:
                    found[asked[place]] = is_among(
                        target, own, k, backoff, counts, order, scores, is_hidden, own_reached
                    )
                for row in own_reached:
                    scores[row] = 0
                flag(is_hidden, own_hidden, False)
    return found
