"""Random numbers as a function of (seed, stream, counters). Nothing is drawn in sequence, so no generator state is
stored.

A member's taste or an item's release date is recomputed from its number whenever it is needed. The same arguments give
the same numbers on every machine and with every numpy version, because the computation is integer arithmetic modulo
2**64.
Source: the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ONE = np.uint64(1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11))
_TO_UNIT = 2.0**-53


class Stream(IntEnum):
    """The purpose of a random number. Streams are independent of each other."""

    ITEM_TRAITS = 1
    ITEM_LIFE = 2
    ITEM_TITLE = 3
    ITEM_DISGUISE = 4
    CONTACT = 5
    MEMBER = 10
    MEMBER_LIFE = 11
    FAVOURITE = 12
    ARRIVAL_USER = 20
    ARRIVAL_ACCEPT = 21
    ARRIVAL_TIME = 22
    SESSION = 23
    PLAY = 24
    INTENT = 30
    MOVE = 31
    POOL = 32
    CANDIDATE = 33
    TASTE_NOISE = 34
    RECALL = 35
    WATCH = 36
    IDLE = 37
    STAY = 38
    KEEP = 39
    DISGUISE = 40


_STREAM_STEPS = [np.uint64(stream * 0x9E3779B97F4A7C15 % 2**64) for stream in range(max(Stream) + 1)]


class Draws:
    """All random numbers of one seed."""

    def __init__(self, seed: int) -> None:
        key = mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN)
        self._keys = {stream: key ^ (np.uint64(stream) << np.uint64(56)) for stream in Stream}

    def bits(self, stream: Stream, *counters: NDArray[np.integer] | int) -> Bits:
        """64 random bits for each element of the counters, which are broadcast against each other.

        Shapes: u64, the broadcast shape of the counters, at least one-dimensional.
        """
        key = self._keys[stream]
        for counter in counters:
            words = np.asarray(counter).astype(np.uint64)
            words += _ONE
            words *= _GOLDEN
            key = mix(key + words)
        return key

    def uniform(self, stream: Stream, *counters: NDArray[np.integer] | int) -> Floats:
        """Uniform numbers in [0, 1)."""
        return _units(self.bits(stream, *counters))

    def below(self, limit: int, stream: Stream, *counters: NDArray[np.integer] | int) -> Ints:
        """Integers in [0, limit)."""
        return (self.uniform(stream, *counters) * limit).astype(np.int64)


def derive(words: Bits, stream: Stream) -> Floats:
    """Uniform numbers in [0, 1) of a stream, computed from words of :meth:`Draws.bits`. This is cheaper than new words."""
    return _units(mix(words + _STREAM_STEPS[stream]))


def spread(words: Bits, count: int) -> Bits:
    """``count`` words from each word, for :func:`derive`. Shapes: u64[N] -> u64[N, count]."""
    return words[:, None] + (np.arange(1, count + 1, dtype=np.uint64) << np.uint64(32)) * _GOLDEN


def _units(bits: Bits) -> Floats:
    return (bits >> _SHIFTS[3]).astype(np.float64) * _TO_UNIT


def mix(bits: Bits) -> Bits:
    """A bijection of 64-bit words in which every input bit changes every output bit with a probability of about one
    half.
    """
    bits = bits ^ (bits >> _SHIFTS[0])
    bits *= _MIX_1
    bits ^= bits >> _SHIFTS[1]
    bits *= _MIX_2
    bits ^= bits >> _SHIFTS[2]
    return bits


def slice_unit(bits: Bits, first: int, count: int) -> Floats:
    """Bits ``first`` to ``first + count`` as numbers in [0, 1): several small draws from one word."""
    return slice_int(bits, first, count).astype(np.float64) * float(2.0**-count)


def slice_int(bits: Bits, first: int, count: int) -> Ints:
    """Bits ``first`` to ``first + count`` as integers in [0, 2**count)."""
    return ((bits >> np.uint64(first)) & np.uint64((1 << count) - 1)).astype(np.int64)


def pick(weights: NDArray[np.float64], units: Floats) -> Ints:
    """A column for every row of ``weights``, with a probability in proportion to its weight; ``units`` are uniform in
    [0, 1).

    Shapes: f64[N, C], f64[N] -> i64[N].
    """
    total = np.cumsum(weights, axis=1)
    below = (total <= (units * total[:, -1])[:, None]).sum(axis=1)
    return np.minimum(below, weights.shape[1] - 1).astype(np.int64)
